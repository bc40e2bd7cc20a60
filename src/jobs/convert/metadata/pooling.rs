//! How a model that makes embeddings makes one vector of many, as sentence-transformers writes it beside the model.

use serde_json::Value;

use super::super::error::{Error, Result, shown};
use super::super::folder::Folder;

const MODULES: &str = "modules.json";

/// llama.cpp's number of the pooling; `None` for a model that has none.
pub(in crate::jobs::convert) fn pooling(folder: &Folder) -> Result<Option<u32>> {
    let Some(text) = folder.text(MODULES)? else { return Ok(None) };
    let modules: Vec<Value> = serde_json::from_str(&text).map_err(|error| Error::malformed(MODULES, error.to_string()))?;
    let of = |module: &Value, key: &str| module.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(module) = modules.iter().find(|module| of(module, "type").ends_with("Pooling")) else { return Ok(None) };
    let settings = folder.inner(&of(module, "path"))?.map(|inner| inner.json("config.json")).transpose()?.flatten();
    let settings = settings.ok_or_else(|| Error::malformed(MODULES, "the settings of the pooling that it names are not there"))?;
    number(&settings).map(Some)
}

fn number(settings: &Value) -> Result<u32> {
    let set = |key: &str| settings.get(key).and_then(Value::as_bool).unwrap_or(false);
    match settings.get("pooling_mode").and_then(Value::as_str).unwrap_or_default() {
        _ if set("pooling_mode_mean_tokens") => Ok(1),
        _ if set("pooling_mode_cls_token") => Ok(2),
        _ if set("pooling_mode_lasttoken") => Ok(3),
        "mean" => Ok(1),
        "cls" => Ok(2),
        "lasttoken" => Ok(3),
        mode => Err(Error::Unsupported { what: format!("the pooling {}", shown(mode)), supported: "mean, cls, last token".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_pooling_is_read_where_the_modules_say_it_is() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(place.path()).expect("open");
        assert_eq!(pooling(&folder).expect("none"), None);
        let modules = json!([{"path": "", "type": "sentence_transformers.models.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]);
        fs::write(place.path().join(MODULES), modules.to_string()).expect("written");
        assert!(pooling(&folder).expect_err("no settings").to_string().contains("not there"));
        fs::create_dir(place.path().join("1_Pooling")).expect("made");
        for (settings, expected) in [
            (json!({"pooling_mode_cls_token": false, "pooling_mode_lasttoken": true}), Some(3)),
            (json!({"pooling_mode": "mean"}), Some(1)),
            (json!({"pooling_mode": "max"}), None),
        ] {
            fs::write(place.path().join("1_Pooling/config.json"), settings.to_string()).expect("written");
            assert_eq!(pooling(&folder).ok().flatten(), expected, "{settings}");
        }
    }
}
