//! LibreOffice opens, edits and saves documents by itself. The other ways in which it saves are in
//! `it/saves.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use onedrivefs_tests::Home;

use crate::on_a_mount;

/// What is put into LibreOffice's own folder: a macro that opens a document, changes it and saves it
/// under its name.
const MACRO: &[(&str, &str)] = &[
    (
        "script.xlb",
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE library:library PUBLIC "-//OpenOffice.org//DTD OfficeDocument 1.0//EN" "library.dtd">
<library:library xmlns:library="http://openoffice.org/2000/library" library:name="Standard"
  library:readonly="false" library:passwordprotected="false">
 <library:element library:name="Test"/>
</library:library>
"#,
    ),
    (
        "Test.xba",
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE script:module PUBLIC "-//OpenOffice.org//DTD OfficeDocument 1.0//EN" "module.dtd">
<script:module xmlns:script="http://openoffice.org/2000/script" script:name="Test"
  script:language="StarBasic">
Sub Edit(path, text)
  Dim options(0) As New com.sun.star.beans.PropertyValue
  options(0).Name = "Hidden"
  options(0).Value = True
  document = StarDesktop.loadComponentFromURL(ConvertToURL(path), "_blank", 0, options())
  If document.supportsService("com.sun.star.text.TextDocument") Then
    document.getText().setString(text)
  Else
    document.getSheets().getByIndex(0).getCellRangeByName("A1").String = text
  End If
  document.store()
  document.close(True)
End Sub
</script:module>
"#,
    ),
];

/// Documents, and what each is made from.
const DOCUMENTS: &[(&str, &str)] = &[("odt", "txt"), ("docx", "txt"), ("xlsx", "csv")];

/// How LibreOffice is run: with a folder of its own, without a screen.
const OFFICE: &str = r#"office() { soffice --headless --norestore "-env:UserInstallation=file://$W/office" "$@" 2>&1; }"#;

/// Makes the documents outside of the mount, which also makes LibreOffice's folder, and adds the
/// macro to it.
fn prepare(home: &Home<'_>) {
    for (kind, from) in DOCUMENTS {
        home.sh(&format!(
            r#"{OFFICE}; cd "$W"; echo first > text.{from}; office --convert-to {kind} text.{from}; test -s text.{kind}"#
        ));
    }
    let folder = home.work().join("office/user/basic/Standard");
    for (name, text) in MACRO {
        fs::write(folder.join(name), text).expect("macro");
    }
}

/// Tells whether a document, which is an archive, holds a text.
fn holds(home: &Home<'_>, document: &Path, text: &str) -> bool {
    let path = document.display();
    let found = home.sh(&format!(
        r#"unzip -p "{path}" '*.xml' | grep -c "{text}" || true"#
    ));
    found.trim() != "0"
}

#[test]
fn libreoffice_saves_one_version_of_the_same_document() {
    on_a_mount(
        &["soffice", "unzip"],
        |_| {},
        |home, mount| {
            let drive = home.service.default_drive();
            prepare(home);
            home.sh(r#"mkdir "$M/papers"; cp "$W"/text.{odt,docx,xlsx} "$M/papers""#);
            mount.sync();
            let entry = |kind: &str| drive.entry(&format!("/papers/text.{kind}")).expect("it");
            for round in ["second", "third"] {
                for (kind, _) in DOCUMENTS {
                    let before = entry(kind);
                    home.sh(&format!(
                        r#"{OFFICE}; office "macro:///Standard.Test.Edit($M/papers/text.{kind},{round} text)""#
                    ));
                    assert!(holds(
                        home,
                        &mount.at(&format!("papers/text.{kind}")),
                        round
                    ));
                    mount.sync();
                    let after = entry(kind);
                    assert_eq!(after.id, before.id, "{kind}");
                    // Libraries write into such documents on arrival, which is a version of its own.
                    let path = home.work().join("there");
                    fs::write(&path, drive.read(&after.path).expect("body")).expect("copy");
                    assert!(holds(home, &path, round), "{kind} on the service");
                    assert_eq!(after.versions, before.versions + 1, "{kind}");
                }
            }
            let names = ["papers", "text.odt", "text.docx", "text.xlsx"].map(str::to_owned);
            assert_eq!(drive.names_ever(), BTreeSet::from(names));
            mount
        },
    );
}
