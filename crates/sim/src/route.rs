//! Graph's addresses are not a plain path grammar: a colon switches to file paths and back, keys
//! stand in quotes and parentheses, and `%2F` is a separator although it was escaped. Parsing
//! works on the raw path, because decoding first would lose the difference.

use percent_encoding::percent_decode_str;

use crate::error::{ApiError, ApiResult};

/// How a drive was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DriveRef {
    Me,
    Id(String),
    User(String),
    Site(String),
}

/// Where the walk to an item starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Root,
    Id(String),
    Special(String),
}

/// An address below a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ItemPath {
    pub(crate) anchor: Anchor,
    pub(crate) steps: Vec<String>,
    /// A last child key given as `@name`, to be filled from the query if it stands there.
    pub(crate) alias: Option<String>,
}

/// A parsed Graph address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Batch,
    User(Option<String>),
    Users,
    Group(String),
    Groups,
    JoinedTeams,
    Team(String, Vec<String>),
    Drive(DriveRef),
    Drives(DriveRef),
    SharedWithMe,
    Search(DriveRef, String),
    Item(DriveRef, ItemPath, Vec<String>),
    Share(String, Vec<String>),
    Site(Option<String>),
    Sites,
    SearchQuery,
    Subscriptions(Option<String>),
}

/// Decodes one segment; control characters make the front end answer in HTML.
pub(crate) fn decode(raw: &str) -> ApiResult<String> {
    let text = percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| ApiError::bad_request("The path is not valid UTF-8."))?
        .into_owned();
    if text.chars().any(char::is_control) {
        return Err(ApiError::html());
    }
    Ok(text)
}

/// Parses the part of the path after the API version.
pub(crate) fn parse(path: &str) -> ApiResult<Route> {
    let path = path
        .strip_suffix('/')
        .filter(|p| !p.ends_with(':'))
        .unwrap_or(path);
    let (first, rest) = head(path);
    match first.as_str() {
        "$batch" => Ok(Route::Batch),
        "search" => Ok(Route::SearchQuery),
        "me" if rest.is_empty() => Ok(Route::User(None)),
        "me" if rest == "/joinedTeams" => Ok(Route::JoinedTeams),
        "me" => owned(DriveRef::Me, rest),
        "drives" if rest.is_empty() => Ok(Route::Drives(DriveRef::Me)),
        "drives" => {
            let (id, rest) = head(rest);
            drive_path(DriveRef::Id(decode(&id)?), rest)
        }
        "users" if rest.is_empty() => Ok(Route::Users),
        "groups" if rest.is_empty() => Ok(Route::Groups),
        "teams" => {
            let (id, rest) = head(rest);
            Ok(Route::Team(decode(&id)?, segments(rest)?))
        }
        "users" | "groups" => {
            let (id, rest) = head(rest);
            let id = decode(&id)?;
            match first.as_str() {
                "groups" if rest.is_empty() => return Ok(Route::Group(id)),
                _ if rest.is_empty() => return Ok(Route::User(Some(id))),
                _ => {}
            }
            owned(DriveRef::User(id), rest)
        }
        "sites" => sites(rest),
        "shares" => {
            let (id, rest) = head(rest);
            Ok(Route::Share(decode(&id)?, segments(rest)?))
        }
        "subscriptions" => Ok(Route::Subscriptions(
            Some(head(rest).0).filter(|id| !id.is_empty()),
        )),
        _ => Err(ApiError::new(
            400,
            "BadRequest",
            "Resource not found for the segment.",
        )),
    }
}

/// Splits off the first segment; both parts keep their escapes.
fn head(path: &str) -> (String, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    match path.find('/') {
        Some(at) => (path[..at].to_owned(), &path[at..]),
        None => (path.to_owned(), ""),
    }
}

fn segments(path: &str) -> ApiResult<Vec<String>> {
    path.split('/')
        .filter(|s| !s.is_empty())
        .map(decode)
        .collect()
}

fn owned(owner: DriveRef, rest: &str) -> ApiResult<Route> {
    let (word, tail) = head(rest);
    match word.as_str() {
        "drive" => drive_path(owner, tail),
        "drives" if tail.is_empty() => Ok(Route::Drives(owner)),
        _ => Err(ApiError::new(
            400,
            "BadRequest",
            "Resource not found for the segment.",
        )),
    }
}

fn sites(rest: &str) -> ApiResult<Route> {
    if rest.is_empty() {
        return Ok(Route::Sites);
    }
    let (id, rest) = head(rest);
    let id = decode(&id)?;
    if let Some(host) = id.strip_suffix(':') {
        let (path, tail) = rest.split_once(':').unwrap_or((rest, ""));
        let name = format!("{host}:{}", decode(path)?);
        if tail.is_empty() {
            return Ok(Route::Site(Some(name)));
        }
        return owned(DriveRef::Site(name), tail);
    }
    if rest.is_empty() {
        return Ok(Route::Site(Some(id)));
    }
    owned(DriveRef::Site(id), rest)
}

fn drive_path(drive: DriveRef, rest: &str) -> ApiResult<Route> {
    if rest.is_empty() {
        return Ok(Route::Drive(drive));
    }
    let body = &rest[1..];
    if let Some(query) = function_argument(body, "search", "q")? {
        return Ok(Route::Search(drive, query));
    }
    if body == "sharedWithMe" {
        return Ok(Route::SharedWithMe);
    }
    let (anchor, after) = if let Some(after) = strip_word(body, "root") {
        (Anchor::Root, after)
    } else if let Some(after) = body.strip_prefix("items/") {
        let end = after.find(['/', ':']).unwrap_or(after.len());
        (Anchor::Id(decode(&after[..end])?), &after[end..])
    } else if let Some(after) = body.strip_prefix("special/") {
        let end = after.find(['/', ':']).unwrap_or(after.len());
        (Anchor::Special(decode(&after[..end])?), &after[end..])
    } else {
        return Err(ApiError::new(
            400,
            "BadRequest",
            "Resource not found for the segment.",
        ));
    };
    if let Some(rest) = after.strip_prefix('/')
        && let Some(query) = function_argument(rest, "search", "q")?
    {
        return Ok(Route::Search(drive, query));
    }
    item_path(drive, anchor, after)
}

fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.strip_prefix(word)
        .filter(|rest| rest.is_empty() || rest.starts_with(['/', ':']))
}

fn item_path(drive: DriveRef, anchor: Anchor, after: &str) -> ApiResult<Route> {
    let mut steps = Vec::new();
    let mut alias = None;
    let mut rest = after;
    if let Some(path) = rest.strip_prefix(':') {
        let (inside, tail) = path.split_once(':').unwrap_or((path, ""));
        let decoded = decode(inside)?;
        let relative = decoded.strip_prefix('/').unwrap_or(&decoded);
        // `items/{id}:/:` is the item itself to the service, and rclone sends it; the root has no
        // such form.
        if relative.is_empty() && anchor == Anchor::Root {
            return Err(ApiError::bad_request("The path after the colon is empty."));
        }
        if !relative.is_empty() {
            if relative.split('/').any(str::is_empty) {
                return Err(ApiError::bad_request("The path contains an empty segment."));
            }
            steps.extend(relative.split('/').map(str::to_owned));
        }
        rest = tail;
    }
    while let Some(key) = rest
        .strip_prefix("/children(")
        .or(rest.strip_prefix("/items("))
    {
        let end = key
            .find(')')
            .ok_or_else(|| ApiError::bad_request("Unclosed key."))?;
        let name = decode(&key[..end])?;
        // The alias may stand in quotes itself.
        let plain = name.trim_matches('\'');
        if plain.starts_with('@') && alias.is_none() {
            alias = Some(plain.to_owned());
        } else {
            steps.push(unquote(&name)?);
        }
        rest = &key[end + 1..];
    }
    let mut tail = segments(rest)?;
    if let Some(last) = tail.last_mut()
        && let Some(token) = function_argument(last, "delta", "token")?
    {
        *last = "delta".into();
        tail.push(token);
    }
    Ok(Route::Item(
        drive,
        ItemPath {
            anchor,
            steps,
            alias,
        },
        tail,
    ))
}

/// Takes the quotes off an OData string.
pub(crate) fn unquote(text: &str) -> ApiResult<String> {
    let inner = text.strip_prefix('\'').and_then(|t| t.strip_suffix('\''));
    let inner = inner.ok_or_else(|| ApiError::bad_request("The key is not quoted."))?;
    Ok(inner.replace("''", "'"))
}

/// The argument of a call such as `search(q='text')`.
fn function_argument(raw: &str, function: &str, argument: &str) -> ApiResult<Option<String>> {
    let inside = raw
        .strip_prefix(function)
        .and_then(|r| r.strip_prefix('('))
        .and_then(|r| r.strip_suffix(')'));
    let Some(inside) = inside else {
        return Ok(None);
    };
    let inside = decode(inside)?;
    let value = inside
        .strip_prefix(argument)
        .and_then(|r| r.trim_start().strip_prefix('='));
    let value = value.ok_or_else(|| ApiError::bad_request("Missing function argument."))?;
    unquote(value.trim()).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &str) -> (Anchor, Vec<String>, Vec<String>) {
        match parse(path).unwrap() {
            Route::Item(_, path, tail) => (path.anchor, path.steps, tail),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addressing_vectors() {
        let data = include_str!("../tests/data/vectors.json");
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        for case in data["path_escaping"].as_array().unwrap() {
            let text = |key: &str| case[key].as_str().unwrap().to_owned();
            let (_, steps, tail) = item(&text("path"));
            let segments = serde_json::json!(steps);
            assert_eq!(segments, case["segments"], "{case}");
            assert_eq!(
                tail.join("/"),
                text("suffix").trim_start_matches('/'),
                "{case}"
            );
        }
        for case in data["children_key_escaping"].as_array().unwrap() {
            let path = format!(
                "/drives/d{}/content",
                case["children_key"].as_str().unwrap()
            );
            let (_, steps, tail) = item(&path);
            assert_eq!(steps, [case["name"].as_str().unwrap()]);
            assert_eq!(tail, ["content"]);
        }
    }

    #[test]
    fn colons_and_keys() {
        let (anchor, steps, tail) = item("/drives/d/items/X!1:/a.txt:/createUploadSession");
        assert_eq!(anchor, Anchor::Id("X!1".into()));
        assert_eq!(
            (steps, tail),
            (vec!["a.txt".into()], vec!["createUploadSession".into()])
        );
        let (anchor, steps, _) = item("/me/drive/items/01A:/:");
        assert_eq!((anchor, steps.len()), (Anchor::Id("01A".into()), 0));
        let (_, steps, tail) = item("/me/drive/root:/a/b:");
        assert_eq!((steps.len(), tail.len()), (2, 0));
        let (_, _, tail) = item("/me/drive/root/delta(token='abc')");
        assert_eq!(tail, ["delta", "abc"]);
        assert!(parse("/me/drive/root:/:/children").is_err());
        assert!(parse("/me/drive/root:/a/:/children").is_err());
        assert!(parse("/me/drive/root:/a%0Ab").unwrap_err().html);
        let found = parse("/me/drive/root/search(q='it''s')").unwrap();
        assert_eq!(found, Route::Search(DriveRef::Me, "it's".into()));
        let site = parse("/sites/host:/sites/team:/drive/root").unwrap();
        assert!(matches!(site, Route::Item(DriveRef::Site(s), _, _) if s == "host:/sites/team"));
    }
}
