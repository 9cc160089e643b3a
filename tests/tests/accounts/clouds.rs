//! National clouds under their genuine names: each with hosts of its own, and one of them without a
//! change feed and without paths in addresses.

use onedrivefs_sim::{DriveKind, DriveSpec, TenantSpec, UserSpec};
use onedrivefs_tests::{Home, Need, Service, needs};

use crate::proxies::{Net, configure, run, serve_proxy};
use crate::tls;
use crate::world::TENANT;

/// A cloud, its hosts, and one that hands out the bytes of files there.
struct Cloud {
    name: &'static str,
    hosts: &'static [&'static str],
}

impl Cloud {
    fn graph(&self) -> &str {
        self.hosts[1]
    }

    fn content(&self) -> &str {
        self.hosts[2]
    }
}

const CLOUDS: [Cloud; 4] = [
    Cloud {
        name: "global",
        hosts: &[
            "login.microsoftonline.com",
            "graph.microsoft.com",
            "contoso-my.sharepoint.com",
        ],
    },
    Cloud {
        name: "usgov-l4",
        hosts: &[
            "login.microsoftonline.us",
            "graph.microsoft.us",
            "contoso-my.sharepoint.us",
        ],
    },
    Cloud {
        name: "usgov-l5",
        hosts: &[
            "login.microsoftonline.us",
            "dod-graph.microsoft.us",
            "contoso-my.sharepoint-mil.us",
        ],
    },
    Cloud {
        name: "china",
        hosts: &[
            "login.chinacloudapi.cn",
            "microsoftgraph.chinacloudapi.cn",
            "contoso-my.sharepoint.cn",
        ],
    },
];

/// An organisation that lives in a cloud.
fn net(cloud: &Cloud) -> Net {
    let service = Service::with(|config| {
        config.public_api = Some(format!("https://{}", cloud.graph()));
        config.public_content = Some(format!("https://{}", cloud.content()));
        config.tenants = vec![TenantSpec {
            id: TENANT.into(),
            domains: vec!["example.com".into()],
            cloud: cloud.name.into(),
            ..TenantSpec::default()
        }];
        config.users = vec![UserSpec {
            id: "ada".into(),
            upn: "ada@example.com".into(),
            tenant: TENANT.into(),
            ..UserSpec::default()
        }];
        config.drives = vec![DriveSpec {
            owner: "ada".into(),
            kind: DriveKind::Business,
            ..DriveSpec::default()
        }];
    });
    let (tls, authority) = tls::serve(&service, "127.0.0.1:0");
    Net {
        service,
        tls,
        authority,
    }
}

const WORK: &str = r#"
"$BIN" login --device-code --client-id "$ID" --cloud "$CLOUD" --tenant example.com || exit 9
"$BIN" mount --poll 1 "$M" > "$W/daemon.log" 2>&1 &
daemon=$!
for try in $(seq 200); do "$BIN" status "$M" > /dev/null 2>&1 && break; sleep 0.1; done
"$BIN" sync "$M" --timeout 60 || exit 8
cat "$M/it's 100% there.txt"
mkdir "$M/a & b"
echo new > "$M/a & b/it's #1.txt"
: > "$M/a & b/empty"
mv "$M/it's 100% there.txt" "$M/a & b/moved.txt"
"$BIN" sync "$M" --timeout 60 || exit 8
"$BIN" unmount "$M"
wait $daemon
"#;

#[test]
fn fe_08_each_cloud_is_used_under_its_own_hosts_and_no_others() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for cloud in CLOUDS {
        let net = net(&cloud);
        let drive = net.service.default_drive();
        drive.put("/it's 100% there.txt", "there").expect("file");
        let proxy = serve_proxy(&net.service, cloud.hosts, net.tls, None);
        let home = Home::new(&net.service);
        let line = format!("proxy = \"http://127.0.0.1:{}\"\n", proxy.port);
        configure(&home, &net, &line);
        let ran = run(&home, WORK, &[("CLOUD", cloud.name)]);
        let log = std::fs::read_to_string(home.work().join("daemon.log")).unwrap_or_default();
        let told = format!("{}: {}{}{log}", cloud.name, ran.out, ran.err);
        assert_eq!(ran.code, Some(0), "{told}");
        assert!(ran.out.contains("there"), "{told}");
        assert_eq!(
            drive.read("/a & b/it's #1.txt").as_deref(),
            Some(&b"new\n"[..]),
            "{told}"
        );
        assert_eq!(drive.read("/a & b/empty").as_deref(), Some(&b""[..]));
        assert!(drive.exists("/a & b/moved.txt"), "{told}");
        let mut hosts: Vec<&str> = cloud.hosts.to_vec();
        hosts.sort_unstable();
        assert_eq!(proxy.hosts(), hosts, "{}", cloud.name);
    }
}

#[test]
fn an_organisation_of_another_cloud_is_told_from_one_that_does_not_exist() {
    const ALL: &[&str] = &[
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.chinacloudapi.cn",
    ];
    for lives in CLOUDS {
        let net = net(&lives);
        let proxy = serve_proxy(&net.service, ALL, net.tls, None);
        let home = Home::new(&net.service);
        let line = format!("proxy = \"http://127.0.0.1:{}\"\n", proxy.port);
        configure(&home, &net, &line);
        let attempt =
            r#""$BIN" login --device-code --client-id "$ID" --cloud "$CLOUD" --tenant "$T""#;
        for other in CLOUDS.iter().filter(|it| it.hosts[0] != lives.hosts[0]) {
            let env = [("CLOUD", other.name), ("T", "example.com")];
            let ran = run(&home, attempt, &env);
            ran.explained(1, "another cloud");
            assert!(ran.err.contains("AADSTS90038"), "{}", ran.err);
        }
        let env = [("CLOUD", lives.name), ("T", "nowhere.example")];
        run(&home, attempt, &env).explained(1, "no such tenant");
    }
}
