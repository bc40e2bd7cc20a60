//! Who may do what: one table of routes, from which the middleware decides and `docs/authorisation.md` is made.
//!
//! A route that is not in the table is an admin's. A path or method that does not exist is told only to those who are let in at all.

use http::Method;

use crate::domain::principal::Role;

/// What a request needs to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Nothing: its credentials are not even looked at.
    Nothing,
    /// To be known at all.
    Known,
    /// To be allowed to see the metrics.
    Metrics,
    /// This role or a greater one.
    Role(Role),
}

impl Needs {
    /// Whether someone of this role is let in. `metrics` is beside the other roles, not below them: it sees the metrics, and
    /// nothing else.
    #[must_use]
    pub fn met_by(self, role: Role) -> bool {
        match self {
            Self::Nothing | Self::Known => true,
            Self::Metrics => role != Role::User,
            Self::Role(least) => role != Role::Metrics && role >= least,
        }
    }

    /// For documents and refusals.
    #[must_use]
    pub fn in_words(self) -> String {
        match self {
            Self::Nothing => "everyone".to_owned(),
            Self::Known => "every key".to_owned(),
            _ => {
                let roles = Role::ALL.into_iter().filter(|role| self.met_by(*role));
                roles.map(Role::as_str).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// In capitals. GET stands for HEAD too.
    pub method: &'static str,
    /// As the router has it.
    pub path: &'static str,
    pub needs: Needs,
}

const fn rule(method: &'static str, path: &'static str, needs: Needs) -> Rule {
    Rule { method, path, needs }
}

const USER: Needs = Needs::Role(Role::User);
const OPERATOR: Needs = Needs::Role(Role::Operator);
const ADMIN: Needs = Needs::Role(Role::Admin);

/// Every route there is.
pub const TABLE: &[Rule] = &[
    rule("GET", "/livez", Needs::Nothing),
    rule("GET", "/readyz", Needs::Nothing),
    rule("GET", "/version", Needs::Nothing),
    rule("GET", "/openapi.json", Needs::Nothing),
    rule("GET", "/docs", Needs::Nothing),
    rule("GET", "/docs/", Needs::Nothing),
    rule("GET", "/docs/{*file}", Needs::Nothing),
    rule("GET", "/metrics", Needs::Metrics),
    rule("POST", "/generate", USER),
    rule("GET", "/generate/{id}", USER),
    rule("DELETE", "/generate/{id}", USER),
    rule("GET", "/models", USER),
    rule("POST", "/feedback", USER),
    rule("GET", "/collection", OPERATOR),
    rule("DELETE", "/collection", OPERATOR),
    rule("POST", "/jobs", USER),
    rule("GET", "/jobs", USER),
    rule("GET", "/jobs/kinds", USER),
    rule("GET", "/jobs/pool", OPERATOR),
    rule("POST", "/jobs/pool", OPERATOR),
    rule("GET", "/jobs/schedules", USER),
    rule("DELETE", "/jobs/schedules/{id}", USER),
    rule("GET", "/jobs/{id}", USER),
    rule("DELETE", "/jobs/{id}", USER),
    rule("POST", "/jobs/{id}/retry", USER),
    rule("GET", "/jobs/{id}/events", USER),
    rule("GET", "/jobs/{id}/artifacts", USER),
    rule("GET", "/jobs/{id}/artifacts/{name}", USER),
    rule("PUT", "/files/{file}", USER),
    rule("DELETE", "/files/{file}", USER),
    rule("GET", "/versions", OPERATOR),
    rule("GET", "/admin/limits", OPERATOR),
    rule("GET", "/admin/queue", OPERATOR),
    rule("GET", "/admin/backends", OPERATOR),
    rule("GET", "/admin/cache", OPERATOR),
    rule("DELETE", "/admin/cache", OPERATOR),
    rule("GET", "/admin/cache/warm", OPERATOR),
    rule("POST", "/admin/cache/warm", OPERATOR),
    rule("DELETE", "/admin/cache/warm/{name}", OPERATOR),
    rule("POST", "/admin/config/reload", ADMIN),
    rule("GET", "/admin/keys", ADMIN),
    rule("POST", "/admin/keys", ADMIN),
    rule("GET", "/admin/keys/{id}", ADMIN),
    rule("PATCH", "/admin/keys/{id}", ADMIN),
    rule("DELETE", "/admin/keys/{id}", ADMIN),
    rule("POST", "/admin/keys/{id}/rotate", ADMIN),
];

/// What a request needs. `path` is the route that the router found, if it found one.
#[must_use]
pub fn needs(method: &Method, path: Option<&str>) -> Needs {
    let Some(path) = path else { return Needs::Known };
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    let of_path = || TABLE.iter().filter(|rule| rule.path == path);
    match of_path().find(|rule| rule.method == method) {
        Some(rule) => rule.needs,
        // A method that the path does not take, or a row that is missing: whoever may do all else there may learn which.
        None => of_path().map(|rule| rule.needs).max().unwrap_or(ADMIN).max(Needs::Known),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn listed() -> BTreeSet<(String, String)> {
        TABLE.iter().map(|rule| (rule.method.to_owned(), rule.path.to_owned())).collect()
    }

    #[test]
    fn the_table_has_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(&crate::api::document()).expect("JSON");
        let paths = document["paths"].as_object().expect("paths").iter();
        let documented = paths.flat_map(|(path, methods)| {
            methods.as_object().expect("methods").keys().map(move |method| (method.to_ascii_uppercase(), path.clone()))
        });
        let pages = crate::api::openapi::PAGES.map(|path| ("GET".to_owned(), path.to_owned()));
        assert_eq!(listed(), documented.chain(pages).collect());
        assert_eq!(listed().len(), TABLE.len(), "a route is listed twice");
    }

    #[test]
    fn each_role_does_what_is_its_own() {
        use Role::{Admin, Metrics, Operator, User};
        let who = |needs: Needs| Role::ALL.into_iter().filter(|role| needs.met_by(*role)).collect::<Vec<_>>();
        assert_eq!(who(Needs::Nothing), Role::ALL);
        assert_eq!(who(Needs::Known), Role::ALL);
        assert_eq!(who(Needs::Metrics), [Metrics, Operator, Admin]);
        assert_eq!(who(Needs::Role(User)), [User, Operator, Admin]);
        assert_eq!(who(Needs::Role(Operator)), [Operator, Admin]);
        assert_eq!(who(Needs::Role(Admin)), [Admin]);
    }

    #[test]
    fn what_is_not_listed_is_not_open() {
        assert_eq!(needs(&Method::GET, None), Needs::Known);
        assert_eq!(needs(&Method::GET, Some("/forgotten")), ADMIN);
        assert_eq!(needs(&Method::POST, Some("/livez")), Needs::Known);
        assert_eq!(needs(&Method::HEAD, Some("/models")), USER);
        assert_eq!(needs(&Method::GET, Some("/generate")), USER);
        assert_eq!(needs(&Method::DELETE, Some("/admin/keys")), ADMIN);
    }
}
