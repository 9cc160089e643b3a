//! What a person can do about the error codes of Graph.
//!
//! Everything the program settles by itself (a conflict, a pause, a lost session) has no entry: a
//! person never gets to see those.

use crate::error::ServiceError;

/// Codes and what to do about them; the first that an answer has on any level counts.
const BY_CODE: &[(&[&str], &str)] = &[
    (
        &["quotaLimitReached", "insufficientStorage"],
        "The drive is full. Delete something and empty the recycle bin, or get more space.",
    ),
    (
        &["malwareDetected", "virusSuspicious"],
        "The service takes this file for malware and does not hand it out. Look at it in a browser.",
    ),
    (
        &["serviceReadOnly"],
        "The service treats the drive as read-only for this application. Signing in once with the \
         permission Files.ReadWrite has helped.",
    ),
    (
        &["provisioningNotAllowed"],
        "This account may not have a OneDrive. Ask the administrator for a licence.",
    ),
    (
        &["Authorization_RequestDenied"],
        "The sign-in lacks a permission for the directory. `onedrivefs doctor` lists what was granted.",
    ),
    (
        &["accessRestricted"],
        "The organization restricts access from this device or place. Ask the administrator.",
    ),
    (
        &["resourceLocked", "lockMismatch", "lockOwnerMismatch"],
        "Somebody has this file locked or checked out. Wait, or ask them to close it.",
    ),
    (
        &["maxFileSizeExceeded", "maxStreamSizeExceeded"],
        "The file is larger than the service takes (250 GB). Split it.",
    ),
    (
        &[
            "childItemCountExceeded",
            "maxItemCountExceeded",
            "maxFolderCountExceeded",
            "maxDocumentCountExceeded",
        ],
        "The folder or drive holds as many items as the service allows. Spread them over folders.",
    ),
    (
        &["totalAffectedItemCountExceeded"],
        "This concerns more items than the service does at once. Do it in parts.",
    ),
    (
        &[
            "nameContainsInvalidCharacters",
            "invalidPath",
            "pathIsTooLong",
            "pathTooDeep",
        ],
        "The service refuses this name or path. Shorten or rename it.",
    ),
    (
        &[
            "unauthenticated",
            "InvalidAuthenticationToken",
            "expiredToken",
        ],
        "The service does not accept the sign-in. Sign in again: `onedrivefs login`, with the same \
         --account",
    ),
    (
        &["notSupported", "invalidAcceptType"],
        "This kind of drive or cloud does not offer that.",
    ),
    (
        &["Request_ResourceNotFound"],
        "There is nobody and nothing of that name in this tenant. Check the name or id.",
    ),
    (
        &[
            "activityLimitReached",
            "tooManyRequests",
            "throttledRequest",
        ],
        "The service asks for a pause. Try again in a few minutes.",
    ),
    (
        &["accessDenied", "notAllowed", "forbidden"],
        "The account or the application lacks a permission for this; whoever owns it, or an \
         administrator, has to grant it. `onedrivefs doctor` lists what was granted.",
    ),
];

/// What to do about an answer, by its codes, then by its status.
pub(crate) fn for_codes(service: &ServiceError) -> Option<&'static str> {
    let listed = BY_CODE
        .iter()
        .find(|(codes, _)| codes.iter().any(|code| service.has_code(code)));
    let by_status = match service.status {
        402 | 507 => Some(BY_CODE[0].1),
        403 => BY_CODE.last().map(|(_, advice)| *advice),
        _ => None,
    };
    listed.map(|(_, advice)| *advice).or(by_status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_a_person_may_see_has_its_advice() {
        for (status, code) in [
            (507, "quotaLimitReached"),
            (507, "insufficientStorage"),
            (402, ""),
            (403, ""),
            (403, "malwareDetected"),
            (403, "virusSuspicious"),
            (403, "serviceReadOnly"),
            (403, "accessRestricted"),
            (403, "provisioningNotAllowed"),
            (403, "accessDenied"),
            (403, "notAllowed"),
            (403, "Authorization_RequestDenied"),
            (401, "unauthenticated"),
            (401, "InvalidAuthenticationToken"),
            (401, "expiredToken"),
            (404, "Request_ResourceNotFound"),
            (409, "childItemCountExceeded"),
            (413, "maxFileSizeExceeded"),
            (423, "resourceLocked"),
            (423, "lockMismatch"),
            (429, "activityLimitReached"),
            (501, "notSupported"),
            (400, "pathIsTooLong"),
        ] {
            let service = ServiceError {
                status,
                codes: vec!["generalException".to_owned(), code.to_owned()],
                ..ServiceError::default()
            };
            assert!(for_codes(&service).is_some(), "{status} {code}");
        }
        let all: std::collections::BTreeSet<_> = BY_CODE.iter().map(|(_, text)| text).collect();
        assert_eq!(all.len(), BY_CODE.len(), "each has words of its own");
    }
}
