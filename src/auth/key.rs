//! The text of a key and its keyed hash. Pure but for the random bytes of a new one.
//!
//! A key is `ark_`, its public id (16 hexadecimal digits), `_`, and 32 random bytes in base64url. The hash is HMAC-SHA256 over id
//! and secret under the installation's pepper: the secret is 256 random bits, so nothing slower is needed (RFC 2104, NIST SP 800-63B 5.1.1.2).

use aws_lc_rs::{constant_time, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::Error;
use crate::domain::secret::Secret;
use crate::storage::keys::Hash;

const PREFIX: &str = "ark_";
/// Of 64 random bits: two keys will not share one.
const ID_DIGITS: usize = 16;
const SECRET_BYTES: usize = 32;

/// A key as someone presents it. Not `Debug`: it holds the secret.
pub struct Presented {
    id: String,
    secret: [u8; SECRET_BYTES],
}

impl Presented {
    /// Reads the one spelling a key has; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let is_id = id.len() == ID_DIGITS && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        // Bounds the work before anything is decoded.
        let is_long_enough = secret.len() == (SECRET_BYTES * 4).div_ceil(3);
        let secret = (is_id && is_long_enough).then(|| URL_SAFE_NO_PAD.decode(secret).ok())??;
        Some(Self { id: id.to_owned(), secret: secret.try_into().ok()? })
    }

    /// A new key, of bytes from the operating system.
    ///
    /// # Errors
    /// When it gives none.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self { id: format!("{:0width$x}", u64::from_be_bytes(random()?), width = ID_DIGITS), secret: random()? })
    }

    /// A new secret for a key that is there.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn renewed(id: &str) -> Result<Self, Error> {
        Ok(Self { id: id.to_owned(), secret: random()? })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// What its holder is given, once.
    pub fn text(&self) -> Secret {
        Secret::new(format!("{PREFIX}{}_{}", self.id, URL_SAFE_NO_PAD.encode(self.secret)))
    }
}

/// # Errors
/// When the operating system gives none.
pub fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}

/// Hashes keys with the installation's pepper.
pub struct Hasher(hmac::Key);

impl Hasher {
    pub fn new(pepper: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, pepper))
    }

    pub fn hash(&self, presented: &Presented) -> Hash {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(presented.id.as_bytes()); // of fixed length, so no two keys hash the same bytes
        context.update(&presented.secret);
        let mut hash = Hash::default();
        hash.copy_from_slice(context.sign().as_ref());
        hash
    }
}

/// Whether two hashes are equal, in a time that does not tell where they differ.
pub fn same(one: &Hash, other: &Hash) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_reads_back_and_its_hash_is_its_own() {
        let key = Presented::generate().expect("random bytes");
        let text = key.text();
        assert_eq!(text.reveal().len(), 4 + 16 + 1 + 43);
        let again = Presented::parse(text.reveal()).expect("reads back");
        let hasher = Hasher::new(&[1; 32]);
        assert!(same(&hasher.hash(&key), &hasher.hash(&again)));
        assert_eq!(again.id(), key.id());
        let renewed = Presented::renewed(key.id()).expect("random bytes");
        assert!(!same(&hasher.hash(&key), &hasher.hash(&renewed)), "another secret");
        assert!(!same(&hasher.hash(&key), &Hasher::new(&[2; 32]).hash(&key)), "another pepper");
        let other = Presented { id: "0".repeat(16), secret: key.secret };
        assert!(!same(&hasher.hash(&key), &hasher.hash(&other)), "another id");
    }

    #[test]
    fn the_hash_is_hmac_sha256() {
        let key = Presented { id: "0011223344556677".into(), secret: [7; 32] };
        let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"pepper"), &[b"0011223344556677", &[7; 32][..]].concat());
        assert_eq!(Hasher::new(b"pepper").hash(&key), expected.as_ref());
    }

    #[test]
    fn only_the_one_spelling_is_a_key() {
        let good = format!("ark_0123456789abcdef_{}", "A".repeat(43));
        assert!(Presented::parse(&good).is_some());
        for wrong in [
            String::new(),
            "ark_".into(),
            good.to_uppercase(),
            good.replace("ark_", "sk-"),
            format!(" {good}"),
            format!("{good}="),
            good[..good.len() - 1].to_owned(),
            good.replace("abcdef", "ABCDEF"),
            // The last character has bits that stand for nothing: set, it would be a second spelling.
            format!("ark_0123456789abcdef_{}B", "A".repeat(42)),
            format!("ark_0123456789abcdef_{}", "ä".repeat(21) + "A"),
            "x".repeat(10_000_000),
        ] {
            assert!(Presented::parse(&wrong).is_none(), "{}", &wrong[..wrong.len().min(80)]);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(ark_)?[0-9a-f_]{0,20}_?.{0,50}") {
            if let Some(key) = Presented::parse(&text) {
                let spelling = key.text();
                prop_assert_eq!(spelling.reveal(), text);
            }
        }
    }
}
