//! When a certificate expires. rustls does not tell.

use chrono::NaiveDateTime;

/// Tags of DER (X.690).
const SEQUENCE: u8 = 0x30;
const EXPLICIT_0: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity, in seconds since 1970 (RFC 5280, section 4.1). `None` if the DER says nothing
/// understandable.
pub(super) fn expiry_of(certificate: &[u8]) -> Option<i64> {
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut fields, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    // The version may be missing. Then come the serial number, the algorithm, and the issuer.
    if fields.first() == Some(&EXPLICIT_0) {
        fields = element(fields)?.2;
    }
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, _, not_after) = element(validity)?;
    let (tag, text, _) = element(not_after)?;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        // Years from 50 on are those of the last century.
        UTC_TIME if text.get(..2)? >= "50" => format!("19{text}"),
        UTC_TIME => format!("20{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = NaiveDateTime::parse_from_str(&text, "%Y%m%d%H%M%SZ").ok()?;
    Some(time.and_utc().timestamp())
}

/// The first element: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        let length = digits
            .iter()
            .fold(0, |length, digit| length << 8 | usize::from(*digit));
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn made(year: i32) -> Vec<u8> {
        let mut parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
        parameters.not_after = date_time_ymd(year, 2, 3);
        let key = KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_expiry_of_a_certificate_is_read() {
        // The first is a UTCTime, the others are GeneralizedTimes.
        for (year, expected) in [
            (2031, 1_927_843_200),
            (2050, 2_527_459_200),
            (4096, 67_092_969_600_i64),
        ] {
            assert_eq!(expiry_of(&made(year)), Some(expected), "{year}");
        }
    }

    #[test]
    fn junk_has_no_expiry_and_causes_no_panic() {
        let whole = made(2031);
        for length in 0..whole.len().min(250) {
            assert_eq!(expiry_of(&whole[..length]), None);
        }
        for place in 0..200 {
            for byte in [0, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                let mut junk = whole.clone();
                junk[place] = byte;
                let _any = expiry_of(&junk);
            }
        }
    }
}
