//! A certificate with its private key, checked against each other.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PSS_SHA256, RsaKeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{PemObject, SectionKind};
use secrecy::zeroize::Zeroizing;

use crate::domain::time::Wall;

use super::der;
use super::secret_file::{Form, Wanted};
use super::values::Wrong;

/// The file of a certificate.
pub(super) const CERTIFICATE: Wanted = Wanted { name: "the certificate", how: PEM, form: Form::Pem };
/// The file of a key alone.
pub(super) const KEY: Wanted = Wanted { name: "the key", how: PEM, form: Form::Pem };

const PEM: &str = "write it as PEM text; from a .pfx: openssl pkcs12 -in FILE.pfx -out FILE.pem -nodes";
const RSA: &str = "make an RSA key of 2048 to 4096 bits with a certificate of its own";

/// A certificate, and the key that makes signatures for it. Cheap to clone.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<RsaKeyPair>,
    thumbprint: String,
    expires: Wall,
}

/// In which file the fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Certificate,
    Key,
}

impl Certificate {
    /// Takes the first key of the text, and the certificate that belongs to it: a file may hold the
    /// chain above it as well. `key` is the text of another file, if the key is in one.
    pub(super) fn read(certificates: &str, key: Option<&str>) -> Result<Self, (At, Wrong)> {
        let (at, text) = key.map_or((At::Certificate, certificates), |key| (At::Key, key));
        let key = read_key(text, at).map_err(|wrong| (at, wrong))?;
        Self::belonging(key, certificates).map_err(|wrong| (At::Certificate, wrong))
    }

    fn belonging(key: RsaKeyPair, text: &str) -> Result<Self, Wrong> {
        let mut other = None;
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            let certificate = certificate.map_err(|_| Wrong::new("holds PEM that cannot be read", PEM))?;
            let Some(read) = der::certificate(&certificate) else {
                return Err(Wrong::new("the certificate in it cannot be read", "write it anew; it may be damaged"));
            };
            if read.rsa_key == Some(key.public().as_ref()) {
                let digest = ring::digest::digest(&ring::digest::SHA256, &certificate);
                let thumbprint = URL_SAFE_NO_PAD.encode(digest);
                return Ok(Self { key: Arc::new(key), thumbprint, expires: read.expires });
            }
            other.get_or_insert(read.rsa_key.is_some());
        }
        Err(match other {
            None => Wrong::new("holds no PEM certificate", PEM),
            Some(true) => Wrong::new(
                "the private key does not belong to the certificate",
                "put the two together that were made together",
            ),
            Some(false) => Wrong::new("the certificate is not for an RSA key", RSA),
        })
    }

    /// SHA-256 of its DER, as base64url: how Entra finds it among those that were registered.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// The last moment at which it is good.
    pub const fn expires(&self) -> Wall {
        self.expires
    }

    /// Signs by RSASSA-PSS with SHA-256 (PS256). None: the key contradicts itself, or there is no
    /// randomness to be had.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message, &mut signature).ok()?;
        Some(signature)
    }

    /// What is wrong with it at this time, if it is over.
    pub(super) fn over(&self, now: Wall) -> Option<Wrong> {
        (self.expires < now).then(|| {
            Wrong::new(
                format!("the certificate expired at {}", self.expires),
                "upload a new one to the app registration and put it here; or correct this machine's clock",
            )
        })
    }
}

/// Without the key.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("thumbprint", &self.thumbprint)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

fn read_key(text: &str, at: At) -> Result<RsaKeyPair, Wrong> {
    // Asked first: the older form of encryption has lines that are no base64.
    if text.lines().any(|line| line.starts_with("-----BEGIN ENCRYPTED") || line.starts_with("Proc-Type: 4,ENCRYPTED")) {
        let how = "take the password off, openssl pkey -in FILE -out NEW, and let only its owner read the file";
        return Err(Wrong::new("the private key is encrypted", how));
    }
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        let (kind, der) = section.map_err(|_| Wrong::new("holds PEM that cannot be read", PEM))?;
        let der = Zeroizing::new(der);
        let key = match kind {
            SectionKind::PrivateKey => RsaKeyPair::from_pkcs8(&der),
            SectionKind::RsaPrivateKey => RsaKeyPair::from_der(&der),
            SectionKind::EcPrivateKey => return Err(Wrong::new("the private key is not an RSA key", RSA)),
            _ => continue,
        };
        return key.map_err(|rejected| match rejected.to_string().as_str() {
            "WrongAlgorithm" => Wrong::new("the private key is not an RSA key", RSA),
            "TooSmall" => Wrong::new("the private key is shorter than 2048 bits", RSA),
            "TooLarge" => Wrong::new("the private key is longer than 4096 bits", RSA),
            _ => Wrong::new("the private key cannot be read", "write it anew; it may be damaged"),
        });
    }
    Err(match at {
        At::Certificate => {
            Wrong::new("holds no private key", "put it into the same file, or name the file that has it in key_file")
        }
        At::Key => Wrong::new("holds no private key", PEM),
    })
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;
    use crate::credentials::{ELLIPTIC, OTHER, RENEWED, SHORT, VALID, key_pem, pem, pkcs1, public_key};

    #[test]
    fn a_key_may_stand_before_or_behind_its_certificate_in_either_form_or_in_another_file() {
        let key = key_pem();
        let old = pem("RSA PRIVATE KEY", &pkcs1());
        let chain = format!("Bag Attributes\r\n{OTHER}{VALID}\r\n{key}{ELLIPTIC}");
        for (text, key) in [
            (format!("{VALID}{key}"), None),
            (format!("{old}{VALID}"), None),
            (chain, None),
            (VALID.to_owned(), Some(key.as_str())),
            (VALID.replace('\n', "\r\n"), Some(old.as_str())),
        ] {
            let read = Certificate::read(&text, key).unwrap();
            // As `openssl x509 -fingerprint -sha256` and `openssl x509 -enddate` have it.
            assert_eq!(read.thumbprint(), "30SNpUtpCrgGX1shlbwyIagjkPXU6nrCL6cmp4a7URE");
            assert_eq!(read.expires().rfc3339(), "2126-10-29T04:25:33.000Z");
        }
    }

    #[test]
    fn what_it_signs_is_verified_with_its_public_key() {
        let certificate = Certificate::read(VALID, Some(&key_pem())).unwrap();
        let signature = certificate.sign(b"message").unwrap();
        let public = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, public_key());
        assert!(public.verify(b"message", &signature).is_ok());
        assert!(public.verify(b"another", &signature).is_err());
        assert_ne!(certificate.sign(b"message").unwrap(), signature, "each has salt of its own");
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_file_and_a_remedy() {
        let key = key_pem();
        let elliptic = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
        let elliptic = pem("PRIVATE KEY", elliptic.as_ref());
        let encrypted = pem("ENCRYPTED PRIVATE KEY", &[1, 2, 3]);
        let old_encrypted = pem("RSA PRIVATE KEY", &[1, 2, 3]).replacen('\n', "\nProc-Type: 4,ENCRYPTED\n\n", 1);
        let cut = key.lines().take(5).collect::<Vec<_>>().join("\n");
        for (text, key, at, what) in [
            (VALID, None, At::Certificate, "holds no private key"),
            (VALID, Some(OTHER), At::Key, "holds no private key"),
            (VALID, Some("nothing of the kind"), At::Key, "holds no private key"),
            (VALID, Some(encrypted.as_str()), At::Key, "the private key is encrypted"),
            (VALID, Some(old_encrypted.as_str()), At::Key, "the private key is encrypted"),
            (VALID, Some(elliptic.as_str()), At::Key, "the private key is not an RSA key"),
            (VALID, Some(&*pem("EC PRIVATE KEY", &[1])), At::Key, "the private key is not an RSA key"),
            (VALID, Some(&*pem("PRIVATE KEY", &[1])), At::Key, "the private key cannot be read"),
            (VALID, Some(cut.as_str()), At::Key, "holds PEM that cannot be read"),
            (OTHER, Some(key.as_str()), At::Certificate, "the private key does not belong to the certificate"),
            (ELLIPTIC, Some(key.as_str()), At::Certificate, "the certificate is not for an RSA key"),
            ("", Some(key.as_str()), At::Certificate, "holds no PEM certificate"),
            (&*pem("CERTIFICATE", &[1]), Some(key.as_str()), At::Certificate, "the certificate in it cannot be read"),
            ("-----BEGIN CERTIFICATE-----\nA", Some(key.as_str()), At::Certificate, "holds PEM that cannot be read"),
        ] {
            let (found, wrong) = Certificate::read(text, key).unwrap_err();
            assert_eq!((found, wrong.what.as_str()), (at, what));
            assert!(!wrong.remedy.is_empty());
        }
    }

    #[test]
    fn its_end_is_in_it() {
        let short = Certificate::read(SHORT, Some(&key_pem())).unwrap();
        let at = |text: &str| Wall::parse(text).unwrap();
        assert_eq!(short.over(at("2027-01-21T04:25:33Z")), None);
        let wrong = short.over(at("2027-01-21T04:25:34Z")).unwrap();
        assert!(wrong.what.contains("expired at 2027-01-21"), "{wrong:?}");
        let renewed = Certificate::read(RENEWED, Some(&key_pem())).unwrap();
        assert_ne!(renewed.thumbprint(), short.thumbprint());
        let shown = format!("{renewed:?}");
        assert!(shown.contains("thumbprint") && !shown.contains("key"), "{shown}");
    }
}
