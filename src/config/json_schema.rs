//! The JSON Schema of the configuration, from the structs that read it.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;

use super::file::File;

/// The JSON Schema (draft 2020-12) of the configuration, as indented JSON that ends in a line break.
///
/// Keys come with what they mean, their defaults and their units; editors complete and check a file by it.
pub fn json_schema() -> String {
    let schema = SchemaGenerator::new(SchemaSettings::draft2020_12()).into_root_schema_for::<File>();
    format!("{:#}\n", schema.as_value())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Every schema of an object with named keys, with the name under which it stands.
    fn objects<'a>(name: &'a str, schema: &'a Value, found: &mut Vec<(&'a str, &'a Value)>) {
        match schema {
            Value::Object(members) => {
                if members.get("properties").is_some_and(Value::is_object) && members.contains_key("type") {
                    found.push((name, schema));
                }
                members
                    .iter()
                    .for_each(|(name, member)| objects(name, member, found));
            }
            Value::Array(members) => members.iter().for_each(|member| objects(name, member, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_block_refuses_unknown_keys_and_every_key_says_what_it_means() {
        let schema: Value = serde_json::from_str(&json_schema()).expect("JSON");
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        let mut found = Vec::new();
        objects("the whole", &schema, &mut found);
        assert!(found.len() > 10, "{found:?}");
        for (name, object) in found {
            assert_eq!(object["additionalProperties"], false, "{name}");
            for (key, property) in object["properties"].as_object().expect("an object") {
                assert!(
                    property.get("description").is_some(),
                    "{name}.{key} has no description"
                );
            }
        }
    }
}
