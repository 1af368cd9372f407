//! Deterministic CBOR (RFC 8949, 4.2.1) of JSON values: what bucketing v3 hashes.
//!
//! Numbers without a fraction are integers as far as CBOR's go (2⁶⁴), so that `1` and `1.0` are the same subject in every language; other
//! numbers take the shortest float that holds them exactly.

use serde_json::{Map, Number, Value};

/// From this magnitude on a number is no CBOR integer: 2⁶⁴.
const INTEGER_BOUND: f64 = 18_446_744_073_709_551_616.0;

pub(crate) fn push_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(false) => out.push(0xf4),
        Value::Bool(true) => out.push(0xf5),
        Value::Number(number) => push_number(out, number),
        Value::String(text) => push_text(out, text),
        Value::Array(elements) => {
            push_head(out, 4, elements.len() as u64);
            for element in elements {
                push_value(out, element);
            }
        }
        Value::Object(members) => push_map(out, members),
    }
}

/// A text string: major type 3.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) {
    push_head(out, 3, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// The head of an array of `length` elements, which follow.
pub(crate) fn push_array_head(out: &mut Vec<u8>, length: usize) {
    push_head(out, 4, length as u64);
}

pub(crate) fn push_float(out: &mut Vec<u8>, number: f64) {
    if number.fract() == 0.0 && number.abs() < INTEGER_BOUND {
        if number < 0.0 {
            push_head(out, 1, number.abs() as u64 - 1);
        } else {
            push_head(out, 0, number as u64);
        }
        return;
    }
    let single = number as f32;
    if f64::from(single) != number {
        out.push(0xfb);
        out.extend(number.to_bits().to_be_bytes());
    } else if let Some(half) = to_half_bits(single) {
        out.push(0xf9);
        out.extend(half.to_be_bytes());
    } else {
        out.push(0xfa);
        out.extend(single.to_bits().to_be_bytes());
    }
}

fn push_number(out: &mut Vec<u8>, number: &Number) {
    if let Some(unsigned) = number.as_u64() {
        push_head(out, 0, unsigned);
    } else if let Some(signed) = number.as_i64() {
        push_integer(out, signed);
    } else if let Some(float) = number.as_f64() {
        push_float(out, float);
    }
}

fn push_integer(out: &mut Vec<u8>, number: i64) {
    match u64::try_from(number) {
        Ok(unsigned) => push_head(out, 0, unsigned),
        Err(_) => push_head(out, 1, number.unsigned_abs() - 1),
    }
}

/// Members in the order of their encoded keys.
fn push_map(out: &mut Vec<u8>, members: &Map<String, Value>) {
    push_head(out, 5, members.len() as u64);
    let mut encoded: Vec<(Vec<u8>, &Value)> = members
        .iter()
        .map(|(key, value)| {
            let mut bytes = Vec::with_capacity(key.len() + 9);
            push_text(&mut bytes, key);
            (bytes, value)
        })
        .collect();
    encoded.sort_by(|(left, _), (right, _)| left.cmp(right));
    for (key, value) in encoded {
        out.extend(key);
        push_value(out, value);
    }
}

/// A major type with its argument in the shortest form.
fn push_head(out: &mut Vec<u8>, major_type: u8, argument: u64) {
    let major_type = major_type << 5;
    if let Ok(byte) = u8::try_from(argument) {
        if byte >= 24 {
            out.push(major_type | 24);
            out.push(byte);
        } else {
            out.push(major_type | byte);
        }
    } else if let Ok(word) = u16::try_from(argument) {
        out.push(major_type | 25);
        out.extend(word.to_be_bytes());
    } else if let Ok(word) = u32::try_from(argument) {
        out.push(major_type | 26);
        out.extend(word.to_be_bytes());
    } else {
        out.push(major_type | 27);
        out.extend(argument.to_be_bytes());
    }
}

/// The half-precision float equal to `single`, if there is one.
fn to_half_bits(single: f32) -> Option<u16> {
    let bits = single.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let exponent = ((bits >> 23) & 0xff) as i32 - 127;
    let mantissa = bits & 0x7f_ffff;
    if (-14..=15).contains(&exponent) {
        let biased = u16::try_from(exponent + 15).ok()? << 10;
        return (mantissa & 0x1fff == 0).then_some(sign | biased | (mantissa >> 13) as u16);
    }
    let units = f64::from(single.abs()) * f64::from(1u32 << 24);
    ((1.0..1024.0).contains(&units) && units.fract() == 0.0).then_some(sign | units as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hex(value: &Value) -> String {
        let mut bytes = Vec::new();
        push_value(&mut bytes, value);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// From appendix A of RFC 8949.
    #[test]
    fn values_are_encoded_as_the_rfc_says() {
        for (value, expected) in [
            (json!(0), "00"),
            (json!(23), "17"),
            (json!(24), "1818"),
            (json!(1_000_000), "1a000f4240"),
            (json!(18_446_744_073_709_551_615u64), "1bffffffffffffffff"),
            (json!(-1), "20"),
            (json!(-1000), "3903e7"),
            (json!(1.0), "01"),
            (json!(-0.0), "00"),
            (json!(1e18), "1b0de0b6b3a7640000"),
            (json!(-1e18), "3b0de0b6b3a763ffff"),
            (json!(1.1), "fb3ff199999999999a"),
            (json!(1.5), "f93e00"),
            (json!(5.960_464_477_539_063e-8), "f90001"),
            (json!(0.000_061_035_156_25), "f90400"),
            (json!(3.402_823_466_385_288_6e38), "fa7f7fffff"),
            (json!("ü"), "62c3bc"),
            (json!([1, [2, 3]]), "8201820203"),
            (json!({"bb": 1, "a": [false]}), "a2616181f462626201"),
        ] {
            assert_eq!(hex(&value), expected, "{value}");
        }
    }
}
