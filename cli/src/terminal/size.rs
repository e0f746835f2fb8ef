//! Numbers of bytes for people. Pure.

/// In the largest unit of which there is one: `2.8 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let (mut whole, mut rest, mut unit) = (bytes, 0, "bytes");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if whole < 1024 {
            break;
        }
        (rest, whole, unit) = (whole % 1024 * 10 / 1024, whole / 1024, larger);
    }
    if unit == "bytes" { format!("{whole} {unit}") } else { format!("{whole}.{rest} {unit}") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_told_in_the_largest_unit_of_which_there_is_one() {
        let all = [0, 1023, 1024, 3_002_368, 10 << 30].map(super::bytes);
        assert_eq!(all, ["0 bytes", "1023 bytes", "1.0 KiB", "2.8 MiB", "10.0 GiB"]);
    }
}
