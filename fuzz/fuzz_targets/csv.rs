//! Tables of any bytes: read without a panic, and as a naive reader reads them.

#![no_main]

#[path = "../../tests/support/naive.rs"]
mod naive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (ours, naive) = naive::both("csv", bytes);
    assert_eq!(ours, naive);
});
