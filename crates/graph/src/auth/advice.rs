//! What the numbers of the identity platform (AADSTS…) mean to a person: the cause and the next step.

/// Cause and next step for a number.
#[must_use]
pub fn advice(code: u32) -> Option<&'static str> {
    account(code)
        .or_else(|| tenant(code))
        .or_else(|| application(code))
        .or_else(|| request(code))
}

/// Numbers about the person and their sign-in.
fn account(code: u32) -> Option<&'static str> {
    Some(match code {
        700_082 | 70043 => {
            "The saved sign-in was not used for too long and has ended. Sign in again."
        }
        50173 | 50132 | 50133 | 70008 | 700_084 | 50089 => {
            "The saved sign-in is no longer valid (too old, or the password or a policy changed). \
             Sign in again."
        }
        54005 => "The code of this sign-in was used already. Sign in again.",
        50072 | 50074 | 50076 | 50078 | 50079 | 50097 | 500_212 | 500_213 => {
            "The organization asks for another proof of identity. Sign in again interactively."
        }
        53000..=53003 | 530_032 | 530_035 => {
            "A policy of the organization forbids this sign-in, perhaps for this device or place. \
             Sign in again; if that is refused too, ask the administrator."
        }
        65004 => "The consent was declined. Sign in again and accept the permissions.",
        65001 | 65005 => {
            "The permissions of this application are not approved for this account. Sign in again and \
             consent, or ask an administrator to approve the application."
        }
        90094 | 90095 | 900_941 => {
            "The organization lets only administrators approve applications. Ask for approval on the \
             sign-in page, or have an administrator approve the application for everybody."
        }
        650_052 | 650_056 | 650_057 => {
            "The application asks for something that its registration or the organization does not \
             have. Add the permissions to the registration and have an administrator approve them."
        }
        50055 | 50144 => "The password expired. Change it in a browser, then sign in again.",
        50057 => "The account is disabled. Ask the administrator.",
        50105 => "The account is not assigned to this application. Ask the administrator.",
        50126 => "The user name or password is wrong. Sign in again.",
        50058 => "Nobody is signed in to the browser. Sign in again interactively.",
        50034 | 50020 | 51004 => {
            "The account does not exist in this tenant. Check the account and the tenant setting."
        }
        _ => return None,
    })
}

/// Numbers about tenants and clouds.
fn tenant(code: u32) -> Option<&'static str> {
    Some(match code {
        90002 => {
            "There is no such tenant. Check the tenant setting: the directory (tenant) id of the \
             overview page, or a domain of the organization."
        }
        50059 | 90072 | 700_005 | 90130 => {
            "The tenant is wrong for this account. Check the tenant setting."
        }
        50194 => {
            "The application belongs to one tenant only. Set the tenant to that one (directory id of \
             the overview page) instead of \"common\"."
        }
        9_002_332 => {
            "The application is for work accounts only. Set the tenant to \"organizations\" or to \
             your own."
        }
        9_002_331 | 9_002_346 => {
            "The application is for personal accounts only. Set the tenant to \"consumers\"."
        }
        9_001_023 | 90124 => {
            "This way of signing in does not work with \"common\" or \"consumers\" here. Set the \
             tenant to your own."
        }
        90038 => "The account lives in another cloud. Check the cloud setting.",
        _ => return None,
    })
}

/// Numbers about the registration of the application.
fn application(code: u32) -> Option<&'static str> {
    Some(match code {
        700_016 | 70001 => {
            "The application is unknown in this tenant. Check the client id (\"Application (client) \
             ID\" of the overview page, not the id of a secret or an object) and the tenant."
        }
        7_000_112 => {
            "The application is disabled in this tenant. An administrator can enable it under \
             Enterprise applications."
        }
        500_011 => {
            "The tenant does not know the service that the scopes name. Check the scopes and the \
             cloud setting."
        }
        50011 => {
            "The redirect URI is not registered. It has to be registered exactly as it is sent, with \
             the same path and slash at the end; http://localhost belongs to \"Mobile and desktop\"."
        }
        7_000_218 => {
            "The application does not allow public clients. Turn on \"Allow public client flows\" \
             in its registration, or configure a client secret."
        }
        700_025 => {
            "The application is a public client, which must not send a secret. Remove the client \
             secret from the configuration."
        }
        7_000_222 => {
            "The client secret has expired. Make a new one in the registration of the application."
        }
        7_000_215 => {
            "The client secret is wrong. It is the secret's value, shown only once, and not its id."
        }
        70002 => "The client id and the client secret do not belong together. Check both.",
        700_027 => {
            "The certificate does not fit the application: it is not registered there, or the key is \
             another one. Upload it under Certificates & secrets."
        }
        700_024 | 500_133 => {
            "The signed statement of the certificate is not within its time. Check this machine's \
             clock."
        }
        70011 => "A requested permission does not exist. Check the configured scopes.",
        _ => return None,
    })
}

/// Numbers about requests, and about the platform itself.
fn request(code: u32) -> Option<&'static str> {
    Some(match code {
        50147 | 501_481 | 501_491 | 70003 | 70007 | 900_144 | 9_002_313 | 50196 => {
            "The sign-in request was not understood. Start again; if it persists, report it."
        }
        70016 => "The code has not been entered yet.",
        70018 => "The code that was entered is wrong. Start again.",
        70019 | 70020 => "The code expired before it was used. Start again to get a new one.",
        90024 | 90033 | 90012 | 50033 | 50087 => {
            "Microsoft's sign-in service has trouble. It is tried again later."
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_the_contract_has_a_sentence_with_a_next_step() {
        for code in [
            50173, 50132, 50133, 700_082, 70008, 70043, 700_084, 54005, 50089, 50072, 50074, 50076,
            50078, 50079, 50097, 53000, 53001, 53002, 53003, 530_032, 530_035, 500_212, 500_213,
            65001, 65004, 90094, 90095, 900_941, 650_052, 650_056, 650_057, 65005, 50055, 50144,
            50057, 50105, 50126, 50034, 50020, 51004, 50059, 90002, 50194, 700_005, 9_002_332,
            9_001_023, 90130, 90124, 90038, 90072, 700_016, 70001, 7_000_112, 50011, 7_000_218,
            700_025, 70002, 7_000_215, 7_000_222, 700_027, 500_133, 500_011, 50147, 501_481,
            501_491, 70003, 70007, 70011, 900_144, 9_002_313, 50196, 70016, 70018, 70019, 90024,
            90033, 90012, 50033, 50087,
        ] {
            let text = advice(code).unwrap_or_else(|| panic!("{code} has no sentence"));
            assert!(text.ends_with('.') && text.len() > 30, "{code}: {text}");
        }
        assert_eq!(advice(1), None);
    }
}
