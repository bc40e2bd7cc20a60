//! Who agreed that their exchanges are kept. Pure.

use super::Config;
use crate::domain::principal::Principal;

/// Whether an exchange may be kept: the configuration wants any, whoever asks has agreed, and the request does not refuse.
#[must_use]
pub fn consents(config: &Config, who: &Principal, is_offered: bool) -> bool {
    let agreed = if who.key_id.is_some() { who.collect } else { config.everyone_without_a_key_consents };
    config.enabled && agreed && is_offered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::principal::Role;

    #[test]
    fn all_three_must_agree_and_keys_speak_for_themselves() {
        for bits in 0..32_u8 {
            let [enabled, everyone, with_key, agreed, offered] = std::array::from_fn(|n| bits & (1 << n) != 0);
            let config = Config { enabled, everyone_without_a_key_consents: everyone, ..Config::default() };
            let key_id = with_key.then(|| "0123456789abcdef".into());
            let who = Principal { key_id, collect: agreed, ..Principal::anonymous(Role::User) };
            let expected = enabled && offered && if with_key { agreed } else { everyone };
            assert_eq!(consents(&config, &who, offered), expected, "{config:?} {with_key} {agreed} {offered}");
        }
        assert!(!consents(&Config::default(), &Principal { collect: true, ..Principal::anonymous(Role::Admin) }, true), "off by default");
    }
}
