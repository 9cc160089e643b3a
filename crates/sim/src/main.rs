//! Runs the simulator alone, so that other clients can be pointed at it.
//!
//! rclone, for one, reaches it through the options that its OneDrive backend has for unusual
//! tenants: `tenant_url` replaces Graph's root (rclone appends `/v2.0`), `auth_url` and
//! `token_url` replace the login host. `--print-rclone-config` prints a working section:
//!
//! ```text
//! onedrivefs-sim --port 8080 --sample --print-rclone-config > rclone.conf &
//! rclone --config rclone.conf lsjson -R sim:
//! ```

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use onedrivefs_sim::{DriveHandle, DriveKind, SimConfig, Simulator, sample};

/// A simulated OneDrive on loopback.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// Port of the login and Graph host; 0 picks one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Port of the host of pre-authenticated URLs; 0 picks one
    #[arg(long, default_value_t = 0)]
    content_port: u16,
    /// Port of the control interface; 0 picks one
    #[arg(long, default_value_t = 0)]
    control_port: u16,
    /// Loopback address of the host of pre-authenticated URLs
    #[arg(long, default_value = "127.0.0.1")]
    content_address: IpAddr,
    /// Kind of the drive: personal, business or documentLibrary
    #[arg(long, default_value = "business", value_parser = parse_kind)]
    kind: DriveKind,
    /// Id of the drive; one of the right shape is made up otherwise
    #[arg(long, default_value = "")]
    drive_id: String,
    /// Whole configuration as a JSON file; the options above then only fill in ports
    #[arg(long)]
    config: Option<PathBuf>,
    /// Fill the drive with a small sample
    #[arg(long)]
    sample: bool,
    /// Add this many small files
    #[arg(long, value_name = "N")]
    files: Option<u64>,
    /// Print a configuration section for rclone and no addresses
    #[arg(long)]
    print_rclone_config: bool,
    /// Describe the control interface and exit
    #[arg(long)]
    control_help: bool,
}

fn parse_kind(text: &str) -> Result<DriveKind, String> {
    let kinds = [
        DriveKind::Personal,
        DriveKind::Business,
        DriveKind::DocumentLibrary,
    ];
    let found = kinds
        .into_iter()
        .find(|kind| kind.as_str().eq_ignore_ascii_case(text));
    found.ok_or_else(|| "expected personal, business or documentLibrary".to_owned())
}

fn config(args: &Args) -> anyhow::Result<SimConfig> {
    let mut config = match &args.config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{} is not a configuration", path.display()))?
        }
        None => {
            let mut config = SimConfig::with_kind(args.kind);
            if let Some(drive) = config.drives.first_mut() {
                drive.id.clone_from(&args.drive_id);
            }
            config.content_address = args.content_address;
            config
        }
    };
    for (own, given) in [
        (&mut config.port, args.port),
        (&mut config.content_port, args.content_port),
        (&mut config.control_port, args.control_port),
    ] {
        if given != 0 {
            *own = given;
        }
    }
    Ok(config)
}

fn rclone_section(sim: &Simulator, drive: &DriveHandle) -> String {
    let login = sim.login_url();
    let token = sim.token_response("rclone");
    format!(
        "[sim]\ntype = onedrive\nclient_id = rclone\nclient_secret = rclone\n\
         auth_url = {login}/common/oauth2/v2.0/authorize\n\
         token_url = {login}/common/oauth2/v2.0/token\n\
         tenant_url = {login}\ndrive_id = {}\ndrive_type = {}\ntoken = {token}\n",
        drive.id(),
        drive.kind().as_str(),
    )
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.control_help {
        print!("{}", onedrivefs_sim::control_help());
        return Ok(());
    }
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let sim = Simulator::start(config(&args)?)
        .await
        .context("cannot bind on loopback")?;
    let drive = sim.default_drive();
    if args.sample {
        sample::populate(&drive)?;
    }
    if let Some(files) = args.files {
        sample::populate_many(&drive, files)?;
    }
    let mut out = std::io::stdout();
    if args.print_rclone_config {
        write!(out, "{}", rclone_section(&sim, &drive))?;
    } else {
        writeln!(out, "graph   {}", sim.graph_url())?;
        writeln!(out, "login   {}", sim.login_url())?;
        writeln!(out, "content {}", sim.content_url())?;
        writeln!(out, "control {}/_sim/", sim.control_url())?;
        writeln!(out, "drive   {}", drive.id())?;
    }
    out.flush()?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    sim.shutdown().await;
    Ok(())
}
