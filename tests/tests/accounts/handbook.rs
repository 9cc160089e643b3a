//! What the manual has to say: each row of the requirements that is kept by words has its place, and
//! the words stand there.

use std::fs;
use std::path::Path;

use onedrivefs_tests::Home;

use crate::world;

/// Rows, the page on which each is kept, and words of that place.
const PLACES: &[(&str, &str, &[&str])] = &[
    (
        "CF-03",
        "manual/proxies.md",
        &[
            "$ onedrivefs doctor --network",
            "`login.microsoftonline.com`",
            "`graph.microsoft.com`",
            "`*.sharepoint.com`",
            "`my.microsoftpersonalcontent.com`",
        ],
    ),
    (
        "CF-06",
        "manual/personal.md",
        &[
            "https://entra.microsoft.com",
            "*Applications*, *App registrations*, *New registration*",
            "*Supported account types*",
            "*Redirect URI*",
        ],
    ),
    (
        "CF-13",
        "manual/app-only-secret.md",
        &["Copy its **Value** at once: it is never shown again"],
    ),
    (
        "CF-31",
        "accounts.md",
        &[
            "https://learn.microsoft.com/office365/servicedescriptions/onedrive",
            "https://learn.microsoft.com/graph/permissions-reference",
        ],
    ),
    (
        "FE-06",
        "manual/personal.md",
        &[
            "may have registered one already",
            "A personal account without a directory of its own is offered one",
        ],
    ),
    ("FE-07", "manual/personal.md", &["The name is free"]),
    (
        "FE-10",
        "manual/app-only-secret.md",
        &["From *Overview*, copy *Application (client) ID* and *Directory (tenant) ID*"],
    ),
    (
        "FE-11",
        "manual/business.md",
        &["it is shown only once, and the *Secret ID* beside it is of no use"],
    ),
    (
        "FE-25",
        "accounts.md",
        &[
            "https://learn.microsoft.com/graph/onedrive-concept-overview",
            "https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow",
            "The redirect URI is `http://localhost` unless",
        ],
    ),
    ("KL-03", "manual/personal.md", &["can be changed later"]),
    (
        "KL-35",
        "accounts.md",
        &[
            "manual/personal.md",
            "manual/business.md",
            "manual/sharepoint.md",
            "manual/teams.md",
            "manual/app-only-secret.md",
            "manual/app-only-certificate.md",
            "https://learn.microsoft.com/entra/identity-platform/quickstart-register-app",
        ],
    ),
    (
        "AL-05",
        "manual/app-only-secret.md",
        &[
            "Whoever has the secret can read and change the files of everybody",
            "`Sites.Selected`",
        ],
    ),
    (
        "AL-06",
        "accounts.md",
        &[
            "*Directory (tenant) ID* on the overview page of the directory",
            "whichever account you open that with",
            "/v2.0/.well-known/openid-configuration",
        ],
    ),
    (
        "AL-09",
        "manual/personal.md",
        &["Copy *Application (client) ID* from the *Overview* page"],
    ),
    (
        "AL-10",
        "manual/app-only-secret.md",
        &["never shown again. The *Secret ID* is of no use"],
    ),
    (
        "AL-11",
        "manual/app-only-secret.md",
        &[
            "**Application permissions**",
            "*Grant admin consent*",
            "*Enterprise applications*, *All applications*, the application, *Permissions*",
        ],
    ),
    (
        "AP-01",
        "manual/app-only-secret.md",
        &["Register the application", "*New registration*"],
    ),
    (
        "AP-13",
        "configuration.md",
        &["`onedrivefs config init` makes the file"],
    ),
    (
        "AP-17",
        "manual/business.md",
        &["*Directory (tenant) ID* of the overview page"],
    ),
];

/// A page without its line breaks.
fn page(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let text =
        fs::read_to_string(docs.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_row_that_is_kept_by_words_has_its_place_in_the_manual() {
    for (row, name, words) in PLACES {
        let text = page(name);
        for word in *words {
            assert!(text.contains(word), "{row}: {name} does not say: {word}");
        }
    }
}

#[test]
fn every_page_of_the_manual_is_reached_from_the_accounts_page_or_the_readme() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = fs::read_to_string(root.join("README.md")).expect("README");
    let entrances = format!("{readme}{}", page("accounts.md"));
    for entry in fs::read_dir(root.join("docs/manual")).expect("manual") {
        let name = entry.expect("page").file_name();
        let name = name.to_str().expect("UTF-8").to_owned();
        assert!(entrances.contains(&format!("manual/{name}")), "{name}");
    }
}

#[test]
fn fe_25_cf_06_the_help_of_login_says_what_to_register_and_with_which_redirect() {
    let service = world::start();
    let mut home = Home::new(&service);
    let help = home.run(&["login", "--help"]).ok();
    assert!(help.contains("http://localhost"), "{help}");
    // Against the genuine hosts; nothing is sent there.
    home.set_env("ONEDRIVEFS_LOGIN_URL", "");
    home.set_env("ONEDRIVEFS_GRAPH_URL", "");
    let told = home.run(&["login"]);
    for words in [
        "register an application",
        "App registrations, New registration",
        "http://localhost",
        "Application (client) ID",
    ] {
        assert!(told.err.contains(words), "{words}: {}", told.err);
    }
}

#[test]
fn ap_17_a_wrong_tenant_is_told_with_the_place_where_the_right_one_stands() {
    let service = world::start();
    let home = Home::new(&service);
    let ran = home.run(&[
        "login",
        "--device-code",
        "--client-id",
        "public",
        "--tenant",
        "nowhere.example",
    ]);
    ran.explained(1, "no such tenant");
    assert!(
        ran.err
            .contains("directory (tenant) id of the overview page"),
        "{}",
        ran.err
    );
}
