//! Numbers in JSON that are read back to the last bit, which `serde_json` by itself does not promise.
//!
//! For serde: `#[serde(with = "exact")]` on an `f64`, `exact::list` on a `Vec<f64>`. What is no number is written as null, and read as one
//! that is none. Only for what is read from text by `serde_json`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde wants")]
pub fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    number.serialize(serializer)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    parse(&Box::<RawValue>::deserialize(deserializer)?)
}

fn parse<E: serde::de::Error>(text: &RawValue) -> Result<f64, E> {
    // The standard library reads the nearest number there is.
    if text.get() == "null" { Ok(f64::NAN) } else { text.get().parse().map_err(E::custom) }
}

pub mod list {
    use super::{Deserialize, Deserializer, RawValue, Serialize, Serializer, parse};

    pub fn serialize<S: Serializer>(numbers: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        numbers.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        Vec::<Box<RawValue>>::deserialize(deserializer)?.iter().map(|text| parse(text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Held {
        #[serde(with = "super")]
        one: f64,
        #[serde(with = "super::list")]
        many: Vec<f64>,
    }

    #[test]
    fn every_bit_comes_back() {
        let mut bits = 0x3FF0_0000_0000_0001_u64;
        let many: Vec<f64> = (0..2000)
            .map(|_| {
                bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                f64::from_bits(bits)
            })
            .filter(|number| number.is_finite())
            .collect();
        let text = serde_json::to_string(&Held { one: f64::NAN, many: many.clone() }).expect("written");
        let back: Held = serde_json::from_str(&text).expect("read");
        assert!(back.one.is_nan());
        assert!(many.iter().zip(&back.many).all(|(one, other)| one.to_bits() == other.to_bits()));
        assert_eq!(many.len(), back.many.len());
    }
}
