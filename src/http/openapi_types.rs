//! The task types in the OpenAPI document: their contracts under `x-task-types`, and what they want to know of
//! params among the schemas, as `NAME.params`.

use serde_json::{Value, json};
use utoipa::openapi::OpenApi;

use super::openapi_callbacks;
use super::task_types::TypeView;
use crate::domain::task_type::TaskTypes;

/// The document with what is declared now.
pub fn with_task_types(document: &OpenApi, types: &TaskTypes) -> Value {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    let mut contracts = Vec::new();
    for made in types.iter() {
        let view = TypeView::of(made, false);
        let Ok(Value::Object(mut contract)) = serde_json::to_value(view) else {
            continue;
        };
        // That is no part of the contract.
        contract.remove("paused");
        if let Some(Value::Object(mut schema)) = contract.remove("params_schema") {
            // References within the schema are meant to start at its own root.
            let id = format!("urn:justonce:params:{}", made.name);
            schema.entry("$id").or_insert(id.into());
            let name = format!("{}.params", made.name);
            let reference = json!({"$ref": format!("#/components/schemas/{name}")});
            document["components"]["schemas"][name] = Value::Object(schema);
            contract.insert("params_schema".to_owned(), reference);
        }
        contracts.push(contract);
    }
    document["x-task-types"] = json!(contracts);
    openapi_callbacks::add(&mut document);
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::builtin;
    use crate::config::defaults::Defaults;

    #[test]
    fn every_type_is_there_with_its_schema() {
        let types = builtin::all(&Defaults::default()).unwrap();
        let document = with_task_types(&crate::http::openapi(), &types);
        let contracts = document["x-task-types"].as_array().unwrap();
        let echo = contracts.iter().find(|c| c["name"] == "echo").unwrap();
        assert_eq!(echo["retry"]["max_attempts"], 4);
        let reference = echo["params_schema"]["$ref"].as_str().unwrap();
        let schema = document.pointer(reference.trim_start_matches('#')).unwrap();
        assert_eq!(schema["properties"]["sleep_ms"]["type"], "integer");
    }
}
