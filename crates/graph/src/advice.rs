//! What the error codes of Graph mean to a person: the cause and the next step.
//!
//! Most of what the program settles by itself (a conflict, a pause, a lost session) a person never
//! gets to see; where somebody does, as in a report or because it goes on failing, it has its sentence
//! all the same.

use crate::error::ServiceError;

/// Codes and what to do about them; the first that an answer has on any level counts, so those that
/// say less come last.
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
        &[
            "resourceLocked",
            "lockMismatch",
            "lockOwnerMismatch",
            "lockNotFoundOrAlreadyExpired",
        ],
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
        &["nameAlreadyExists", "similarRelationshipNameAlreadyExists"],
        "There is something of that name already, or of one that the service takes for the same. Rename \
         one of the two.",
    ),
    (
        &["resyncRequired", "syncStateNotFound"],
        "The service lost track of what changed. The drive is listed anew by itself; nothing has to be \
         done.",
    ),
    (
        &[
            "uploadSessionNotFound",
            "uploadSessionFailed",
            "uploadSessionIncomplete",
            "fragmentLengthMismatch",
            "fragmentOutOfOrder",
            "fragmentOverlap",
            "maxFragmentLengthExceeded",
            "invalidRange",
        ],
        "An upload was interrupted, and begins again by itself. If it goes on failing, `onedrivefs \
         status` says why.",
    ),
    (
        &["truncationNotAllowed", "propertyNotUpdateable"],
        "The service does not let this be changed. Change it in a browser.",
    ),
    (
        &["itemNotFound"],
        "It does not exist, or this account may not see it. Check the name or id; `onedrivefs drives` \
         lists what there is.",
    ),
    (
        &["cannotSnapshotTree", "resourceBeingProvisioned"],
        "The service is not ready for that yet. Try again in a few minutes.",
    ),
    (
        &[
            "entityTagDoesNotMatch",
            "malformedEntityTag",
            "resourceModified",
        ],
        "Somebody else changed it meanwhile. Look at what is there now, and repeat what you did.",
    ),
    (
        &["accessDenied", "notAllowed", "forbidden"],
        "The account or the application lacks a permission for this; whoever owns it, or an \
         administrator, has to grant it. `onedrivefs doctor` lists what was granted.",
    ),
    (
        &[
            "invalidResourceId",
            "invalidParameterFormat",
            "invalidQueryOption",
            "parameterIsTooLong",
            "invalidRequest",
            "badRequest",
        ],
        "The service does not understand this request. Check the ids and names in it; if they are right, \
         report it, with what `onedrivefs doctor --report FILE` writes.",
    ),
    (
        &[
            "extensionError",
            "serviceNotAvailable",
            "UnknownError",
            "generalException",
        ],
        "The service has trouble. Try again in a few minutes.",
    ),
];

/// Statuses and the code that says the same, for answers without a code that is known.
const BY_STATUS: &[(u16, &str)] = &[
    (400, "invalidRequest"),
    (401, "unauthenticated"),
    (402, "quotaLimitReached"),
    (403, "accessDenied"),
    (404, "itemNotFound"),
    (405, "notSupported"),
    (406, "notSupported"),
    (409, "nameAlreadyExists"),
    (410, "resyncRequired"),
    (411, "notSupported"),
    (412, "resourceModified"),
    (413, "maxFileSizeExceeded"),
    (415, "notSupported"),
    (416, "invalidRange"),
    (422, "invalidRequest"),
    (423, "resourceLocked"),
    (429, "tooManyRequests"),
    (500, "generalException"),
    (501, "notSupported"),
    (502, "serviceNotAvailable"),
    (503, "serviceNotAvailable"),
    (504, "serviceNotAvailable"),
    (507, "quotaLimitReached"),
    (509, "serviceNotAvailable"),
];

/// What to do about an answer, by its codes, then by its status.
pub(crate) fn for_codes(service: &ServiceError) -> Option<&'static str> {
    let by_code = |has: &dyn Fn(&str) -> bool| {
        let mut all = BY_CODE.iter();
        let found = all.find(|(codes, _)| codes.iter().any(|code| has(code)));
        found.map(|(_, advice)| *advice)
    };
    by_code(&|code| service.has_code(code)).or_else(|| {
        let (_, same) = BY_STATUS.iter().find(|(own, _)| *own == service.status)?;
        by_code(&|code| code == *same)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with these codes, the outermost first.
    fn answer(status: u16, codes: &[&str]) -> ServiceError {
        ServiceError {
            status,
            codes: codes.iter().map(|&code| code.to_owned()).collect(),
            ..ServiceError::default()
        }
    }

    /// A status without any code, and the codes that come with it.
    const DOCUMENTED: &[(u16, &[&str])] = &[
        (
            400,
            &[
                "invalidRequest",
                "badRequest",
                "nameContainsInvalidCharacters",
                "pathIsTooLong",
                "pathTooDeep",
                "invalidPath",
                "invalidResourceId",
                "fragmentLengthMismatch",
                "fragmentOutOfOrder",
                "fragmentOverlap",
                "invalidParameterFormat",
                "invalidQueryOption",
                "parameterIsTooLong",
                "propertyNotUpdateable",
                "truncationNotAllowed",
                "totalAffectedItemCountExceeded",
            ],
        ),
        (
            401,
            &[
                "unauthenticated",
                "InvalidAuthenticationToken",
                "expiredToken",
            ],
        ),
        (402, &["quotaLimitReached", "insufficientStorage"]),
        (
            403,
            &[
                "accessDenied",
                "accessRestricted",
                "serviceReadOnly",
                "malwareDetected",
                "virusSuspicious",
                "notAllowed",
                "provisioningNotAllowed",
                "Authorization_RequestDenied",
            ],
        ),
        (
            404,
            &[
                "itemNotFound",
                "uploadSessionNotFound",
                "Request_ResourceNotFound",
            ],
        ),
        (405, &["notSupported", "invalidAcceptType"]),
        (406, &["invalidAcceptType"]),
        (
            409,
            &[
                "nameAlreadyExists",
                "similarRelationshipNameAlreadyExists",
                "resourceModified",
                "childItemCountExceeded",
                "cannotSnapshotTree",
                "maxDocumentCountExceeded",
                "maxFolderCountExceeded",
                "maxItemCountExceeded",
                "uploadSessionFailed",
                "uploadSessionIncomplete",
            ],
        ),
        (410, &["resyncRequired", "syncStateNotFound"]),
        (411, &[]),
        (
            412,
            &[
                "resourceModified",
                "entityTagDoesNotMatch",
                "malformedEntityTag",
            ],
        ),
        (
            413,
            &[
                "maxFileSizeExceeded",
                "maxStreamSizeExceeded",
                "maxFragmentLengthExceeded",
            ],
        ),
        (415, &[]),
        (416, &["invalidRange"]),
        (422, &["invalidRequest"]),
        (
            423,
            &[
                "resourceLocked",
                "lockMismatch",
                "lockOwnerMismatch",
                "lockNotFoundOrAlreadyExpired",
            ],
        ),
        (
            429,
            &[
                "activityLimitReached",
                "throttledRequest",
                "tooManyRequests",
            ],
        ),
        (500, &["generalException", "extensionError"]),
        (501, &["notSupported"]),
        (502, &["UnknownError"]),
        (503, &["serviceNotAvailable", "resourceBeingProvisioned"]),
        (504, &[]),
        (507, &["quotaLimitReached", "insufficientStorage"]),
        (509, &[]),
    ];

    #[test]
    fn every_documented_code_and_status_has_a_cause_and_a_next_step() {
        for (status, codes) in DOCUMENTED {
            let plain = for_codes(&answer(*status, &[""]));
            assert!(plain.is_some(), "{status} without a code");
            for code in *codes {
                let own = for_codes(&answer(0, &[code]));
                let own = own.unwrap_or_else(|| panic!("{code} has no sentence"));
                assert!(own.ends_with('.') || own.ends_with("--account"), "{own}");
                // What stands around it says less.
                for around in ["generalException", "invalidRequest"] {
                    let nested = for_codes(&answer(*status, &[around, code]));
                    let vague = ["generalException", "extensionError", "UnknownError"];
                    let vague = vague.contains(code) || *code == "serviceNotAvailable";
                    assert!(vague || nested == Some(own), "{around}, {code}");
                }
            }
        }
        assert_eq!(for_codes(&answer(418, &["teapot"])), None);
        let all: std::collections::BTreeSet<_> = BY_CODE.iter().map(|(_, text)| text).collect();
        assert_eq!(all.len(), BY_CODE.len(), "each has words of its own");
    }
}
