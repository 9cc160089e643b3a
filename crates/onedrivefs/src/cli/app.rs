//! `onedrivefs app`.

use onedrivefs_graph::auth::PublicCertificate;

use super::{AppCertArgs, AppCommand, AppImportArgs, LoginArgs, ProofArgs, login};
use crate::connect::is_guid;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::output;

/// What stands in front of the client id in the combined name.
const IMPORT_PREFIX: &str = "app_permission~";

/// Runs one of the commands.
pub(crate) async fn run(command: AppCommand) -> Outcome {
    match command {
        AppCommand::Cert(args) => cert(&args),
        AppCommand::Import(args) => import(args).await,
    }
}

/// Prints what the manifest of an application needs to know a certificate.
fn cert(args: &AppCertArgs) -> Outcome {
    let path = &args.certificate;
    let certificate = PublicCertificate::read(path);
    let certificate = certificate.map_err(|error| credentials::explain(path, path, error))?;
    let key_id = match &args.key_id {
        Some(id) if is_guid(id) => id.clone(),
        Some(_) => {
            return Err(
                Failure::usage("--key-id", "is not a GUID").next("leave it out for a new one")
            );
        }
        None => uuid::Uuid::new_v4().to_string(),
    };
    output::json(&certificate.key_credential(&key_id))?;
    output::note(
        "Add this entry to keyCredentials in the manifest of the registration; or upload the \
         certificate under Certificates & secrets, which does the same.",
    );
    Ok(())
}

/// Signs in an application by the combined name that another program uses.
async fn import(args: AppImportArgs) -> Outcome {
    let client_id = args.name.trim().strip_prefix(IMPORT_PREFIX);
    let Some(client_id) = client_id.filter(|id| !id.is_empty()) else {
        return Err(Failure::usage(
            "app import",
            format!("the name must have the form {IMPORT_PREFIX}CLIENT-ID"),
        )
        .next("copy the user name from the other program's settings"));
    };
    let login = LoginArgs {
        account: args.account,
        client_id: Some(client_id.to_owned()),
        tenant: Some(args.tenant),
        cloud: args.cloud,
        app_only: true,
        user: args.user,
        proof: ProofArgs {
            client_secret_file: args.proof.client_secret_file,
            client_secret: args.proof.client_secret,
            ..ProofArgs::default()
        },
        ..LoginArgs::default()
    };
    login::run(login).await
}
