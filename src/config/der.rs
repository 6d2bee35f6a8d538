//! Until when a certificate is good, and its public key, from its DER (RFC 5280, section 4.1).
//!
//! Elements are taken off the front of a slice: no length in it leads outside. Nothing is verified.

use crate::domain::time::Wall;

/// Of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Certificate<'a> {
    /// The last moment at which it is good.
    pub(super) expires: Wall,
    /// The public key as PKCS#1 has it; none when it is not an RSA key.
    pub(super) rsa_key: Option<&'a [u8]>,
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// 1.2.840.113549.1.1.1, rsaEncryption.
const RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// Reads a certificate; none when it is not one.
pub(super) fn certificate(mut der: &[u8]) -> Option<Certificate<'_>> {
    let mut whole = inside(&mut der, SEQUENCE)?;
    let mut fields = inside(&mut whole, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        inside(&mut fields, VERSION)?;
    }
    inside(&mut fields, INTEGER)?;
    let [_algorithm, _issuer] = [inside(&mut fields, SEQUENCE)?, inside(&mut fields, SEQUENCE)?];
    let mut validity = inside(&mut fields, SEQUENCE)?;
    let _subject = inside(&mut fields, SEQUENCE)?;
    let mut public = inside(&mut fields, SEQUENCE)?;
    element(&mut validity)?;
    let mut algorithm = inside(&mut public, SEQUENCE)?;
    let is_rsa = inside(&mut algorithm, OBJECT_ID)? == RSA;
    let (unused_bits, key) = inside(&mut public, BIT_STRING)?.split_first()?;
    let rsa_key = (is_rsa && *unused_bits == 0).then_some(key);
    Some(Certificate { expires: time(element(&mut validity)?)?, rsa_key })
}

/// The content of the next element, which must have this tag.
fn inside<'a>(from: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    element(from).filter(|(found, _)| *found == tag).map(|(_, content)| content)
}

/// Takes the next element off the front: its tag, which has one byte here, and its content.
fn element<'a>(from: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, rest) = from.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *from = rest;
    Some((*tag, content))
}

/// `YYMMDDHHMMSSZ`, of 1950 to 2049, or `YYYYMMDDHHMMSSZ`; always UTC, to the second.
fn time((tag, content): (u8, &[u8])) -> Option<Wall> {
    let digits = std::str::from_utf8(content.strip_suffix(b"Z")?).ok()?;
    let century = if digits < "5" { "20" } else { "19" };
    let digits = match (tag, digits.len()) {
        (UTC_TIME, 12) => format!("{century}{digits}"),
        // "No end" is written 99991231235959Z, which is too late for our calendar by a day.
        (GENERALIZED_TIME, 14) if digits.starts_with("9999") => "99991230000000".to_owned(),
        (GENERALIZED_TIME, 14) => digits.to_owned(),
        _ => return None,
    };
    let (date, time) = digits.split_at_checked(8).filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    Wall::parse(&format!("{date}T{time}Z"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::credentials::{ELLIPTIC, OTHER, SHORT, VALID, der, public_key};

    #[test]
    fn certificates_of_openssl_are_read() {
        for (pem, expires, ours) in [
            (VALID, "2126-10-29T04:25:33Z", true),
            (SHORT, "2027-01-21T04:25:33Z", true),
            (OTHER, "2126-10-29T04:25:33Z", false),
        ] {
            let der = der(pem);
            let read = certificate(&der).unwrap();
            assert_eq!(Some(read.expires), Wall::parse(expires));
            assert_eq!(read.rsa_key == Some(&public_key()), ours);
        }
        let der = der(ELLIPTIC);
        assert_eq!(certificate(&der).unwrap().rsa_key, None);
    }

    #[test]
    fn times_have_two_spellings_and_no_third() {
        for (tag, text, expected) in [
            (UTC_TIME, "491231235959Z", Some("2049-12-31T23:59:59Z")),
            (UTC_TIME, "500101000000Z", Some("1950-01-01T00:00:00Z")),
            (GENERALIZED_TIME, "20500101000000Z", Some("2050-01-01T00:00:00Z")),
            (GENERALIZED_TIME, "99991231235959Z", Some("9999-12-30T00:00:00Z")),
            (UTC_TIME, "270121042533+", None),
            (UTC_TIME, "20270121042533Z", None),
            (UTC_TIME, "271321042533Z", None),
            (UTC_TIME, "2701210425Z", None),
            (UTC_TIME, "27-1-1 : :33Z", None),
            (GENERALIZED_TIME, "2027012104253.5Z", None),
            (SEQUENCE, "270121042533Z", None),
        ] {
            assert_eq!(time((tag, text.as_bytes())), expected.and_then(Wall::parse), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn garbage_is_no_certificate(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(certificate(&bytes), None);
        }

        #[test]
        fn a_damaged_certificate_is_read_without_leaving_it(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            length in any::<prop::sample::Index>(),
        ) {
            let mut der = der(VALID);
            for (at, byte) in damage {
                let at = at.index(der.len());
                der[at] = byte;
            }
            der.truncate(length.index(der.len()) + 1);
            if let Some(Certificate { rsa_key: Some(key), .. }) = certificate(&der) {
                prop_assert!(der.as_ptr_range().contains(&key.as_ptr()));
            }
        }

        #[test]
        fn a_certificate_that_is_cut_off_is_none(length in 0..800_usize) {
            let der = der(VALID);
            prop_assert_eq!(certificate(der.get(..length.min(der.len() - 1)).unwrap()), None);
        }
    }
}
