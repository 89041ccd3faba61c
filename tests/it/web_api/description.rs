//! `/api/openapi.json`, and whether the answers match it.

use std::collections::BTreeMap;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::support::{Answer, Mirror};

/// The schema of `OpenAPI` 3.1, from <https://spec.openapis.org/oas/3.1/schema/2022-10-07>.
const OPENAPI_3_1: &str = include_str!("../../fixtures/openapi/openapi-3.1.json");

const ROUTER: &str = include_str!("../../../src/http/router.rs");

/// The description that a mirror serves.
pub(super) struct Description {
    pub(super) json: Value,
    /// The validators by path and status.
    validators: BTreeMap<(String, u16), Validator>,
}

impl Description {
    pub(super) fn of(mirror: &Mirror) -> Self {
        let json = mirror.get("/api/openapi.json").json();
        let mut validators = BTreeMap::new();
        for (path, item) in json["paths"].as_object().unwrap() {
            for (status, response) in item["get"]["responses"].as_object().unwrap() {
                let schema = &response["content"]["application/json"]["schema"];
                if !schema.is_null() {
                    // References point into `components`.
                    let schema = json!({ "allOf": [schema], "components": json["components"] });
                    let validator = jsonschema::validator_for(&schema).unwrap();
                    validators.insert((path.clone(), status.parse().unwrap()), validator);
                }
            }
        }
        Self { json, validators }
    }

    /// The contradictions between an answer to a request for this path and the description.
    pub(super) fn complaints(&self, path: &str, answer: &Answer) -> Vec<String> {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let Some(template) = self.template_of(path) else {
            return vec!["it is not described".to_owned()];
        };
        let Some(validator) = self.validators.get(&(template, answer.status)) else {
            return vec![format!("{} is not described", answer.status)];
        };
        let json = answer.json();
        let errors = validator.iter_errors(&json);
        errors
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    }

    /// The described path of a request: literal parts come before parameters.
    fn template_of(&self, path: &str) -> Option<String> {
        let parts: Vec<&str> = path.split('/').collect();
        let templates = self.json["paths"].as_object().unwrap().keys();
        let matching = templates.filter(|template| {
            let wanted: Vec<&str> = template.split('/').collect();
            let mut pairs = wanted.iter().zip(&parts);
            wanted.len() == parts.len()
                && pairs.all(|(wanted, part)| wanted.starts_with('{') || wanted == part)
        });
        matching
            .min_by_key(|template| template.matches('{').count())
            .cloned()
    }
}

/// The paths of the URL table that the description must have.
fn routes() -> Vec<String> {
    let code = ROUTER
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let texts = code.flat_map(|line| line.split('"').skip(1).step_by(2));
    let paths = texts.filter(|text| text.starts_with("/api/") || text.starts_with("/policy"));
    // The path `follow` has only writes. It is in the table so that it does not count as a version.
    let read = paths.filter(|path| !path.ends_with("/follow"));
    let mut routes: Vec<String> = read.map(|path| path.replace("{*", "{")).collect();
    routes.sort();
    routes
}

/// Fails unless a description is valid, and has every route and no other.
#[track_caller]
pub(super) fn assert_valid_and_complete(description: &Value) {
    let schema: Value = serde_json::from_str(OPENAPI_3_1).unwrap();
    let openapi = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = openapi
        .iter_errors(description)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1."));
    for (name, schema) in description["components"]["schemas"].as_object().unwrap() {
        jsonschema::meta::validate(schema).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let described = description["paths"].as_object().unwrap();
    let mut described: Vec<&String> = described.keys().collect();
    described.sort();
    assert_eq!(described, routes().iter().collect::<Vec<_>>());
    for (path, item) in description["paths"].as_object().unwrap() {
        let unavailable = &item["get"]["responses"]["503"];
        assert!(unavailable["headers"]["retry-after"].is_object(), "{path}");
        let schema = &unavailable["content"]["application/json"]["schema"];
        assert_eq!(
            schema,
            &json!({ "$ref": "#/components/schemas/Errors" }),
            "{path}"
        );
    }
}
