//! `errorHResult` of an action, as people look it up.
//!
//! Defender gives a signed number (-2145844840 was seen on `TimeOut`); everybody else writes HRESULTs in
//! hexadecimal digits. The meanings are those of Microsoft's "Common HRESULT values", and of facility 25,
//! whose codes are HTTP statuses. Others are shown without one.

/// Facility 25, `FACILITY_HTTP`: the low word is an HTTP status.
const HTTP: u32 = 0x8019;

/// Meanings as Microsoft's "Common HRESULT values" has them.
const COMMON: [(u32, &str); 10] = [
    (0x8000_4001, "E_NOTIMPL: not implemented"),
    (0x8000_4002, "E_NOINTERFACE: no such interface supported"),
    (0x8000_4003, "E_POINTER: pointer that is not valid"),
    (0x8000_4004, "E_ABORT: operation aborted"),
    (0x8000_4005, "E_FAIL: unspecified failure"),
    (0x8000_FFFF, "E_UNEXPECTED: unexpected failure"),
    (0x8007_0005, "E_ACCESSDENIED: general access denied error"),
    (0x8007_0006, "E_HANDLE: handle that is not valid"),
    (0x8007_000E, "E_OUTOFMEMORY: failed to allocate necessary memory"),
    (0x8007_0057, "E_INVALIDARG: one or more arguments are not valid"),
];

/// The code in hexadecimal digits, with its meaning where that is known; nothing for 0, which is success.
pub fn told(code: i64) -> Option<String> {
    // Signed or not, it is 32 bits.
    let code = u32::try_from(code & i64::from(u32::MAX)).unwrap_or_default();
    let hex = format!("0x{code:08X}");
    let (facility, low) = (code >> 16, code & 0xFFFF);
    match COMMON.iter().find(|(known, _)| *known == code) {
        _ if code == 0 => None,
        Some((_, meaning)) => Some(format!("{hex} ({meaning})")),
        None if facility == HTTP && low == 408 => Some(format!("{hex} (HTTP 408: request timeout)")),
        None if facility == HTTP && (100..600).contains(&low) => Some(format!("{hex} (HTTP {low})")),
        None => Some(hex),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_in_hex_with_what_is_known_of_them() {
        for (code, expected) in [
            (0, None),
            (-2_145_844_840, Some("0x80190198 (HTTP 408: request timeout)")),
            (2_149_122_456, Some("0x80190198 (HTTP 408: request timeout)")),
            (-2_147_467_260, Some("0x80004004 (E_ABORT: operation aborted)")),
            (-2_147_467_259, Some("0x80004005 (E_FAIL: unspecified failure)")),
            (-2_145_844_748, Some("0x801901F4 (HTTP 500)")),
            (-2_145_910_784, Some("0x80180000")),
            (-2_145_845_247, Some("0x80190001")),
            (1, Some("0x00000001")),
        ] {
            assert_eq!(told(code).as_deref(), expected, "{code}");
        }
    }

    #[test]
    fn every_common_code_is_a_failure_and_stands_once() {
        for (n, (code, meaning)) in COMMON.iter().enumerate() {
            assert!(code >> 31 == 1 && meaning.starts_with("E_"), "{meaning}");
            assert!(COMMON.iter().skip(n + 1).all(|(other, _)| other != code), "{meaning}");
        }
    }
}
