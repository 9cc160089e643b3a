//! A drive that is pleasant to look at, for demonstrations: some text, pictures that open, names
//! from several languages, and files far too large to be worth storing.

use crate::body::FileBody;
use crate::handle::{DriveHandle, SimError};
use crate::png;

/// Noon of 1 March 2025 UTC in milliseconds: the sample's files are dated from here on.
const FIRST_DAY_MS: i64 = 1_740_830_400_000;
/// Milliseconds per day.
const DAY_MS: i64 = 86_400_000;
/// Files per folder of a drive made by [`populate_many`].
const FILES_PER_FOLDER: u64 = 200;
/// Folders per folder of a drive made by [`populate_many`].
const FOLDERS_PER_FOLDER: u64 = 50;

const TEXTS: &[(&str, &str)] = &[
    (
        "/Welcome.md",
        "# Welcome\n\nThis drive lives on a simulated OneDrive inside your machine. Nothing here \
         leaves it.\n\nThings to try:\n\n- open a picture in `Pictures`\n- seek around in \
         `Videos/holiday-2025.mp4` (1 GiB that was never downloaded)\n- edit this file, then look \
         at `onedrivefs status`\n- copy a folder in, rename it, delete it\n",
    ),
    (
        "/Documents/Letters/landlord.txt",
        "Dear Mrs Okafor,\n\nthe heating in the kitchen has been cold since Tuesday. Could \
         somebody have a look at it this week? I am at home every day after four.\n\nKind \
         regards\nAda\n",
    ),
    (
        "/Documents/Letters/Größe und Gewicht.txt",
        "Paket 1: 40 x 30 x 20 cm, 3,2 kg\nPaket 2: 60 x 40 x 40 cm, 11,8 kg\n",
    ),
    (
        "/Documents/Budget/2025.csv",
        "month,rent,food,travel,other\nJanuary,910,312.40,48.00,120.15\n\
         February,910,298.05,112.50,64.90\nMarch,910,335.72,36.20,201.00\n\
         April,910,301.18,410.00,88.45\nMay,910,322.60,54.10,97.30\n",
    ),
    (
        "/Documents/Recipes/Käsespätzle.md",
        "# Käsespätzle\n\n400 g flour, 4 eggs, 200 ml water, salt; 250 g mountain cheese, 3 \
         onions.\n\n1. Beat the dough until it blisters, rest it half an hour.\n2. Fry the onions \
         slowly, they take longer than you think.\n3. Scrape the dough into boiling water, layer \
         with cheese, onions on top.\n",
    ),
    (
        "/Documents/Recipes/味噌汁.md",
        "# 味噌汁\n\nだし 600 ml、味噌 大さじ3、豆腐 半丁、わかめ 少々。\n\n\
         だしを温め、豆腐とわかめを入れ、火を止めてから味噌を溶く。\n",
    ),
    (
        "/Documents/Notes/🚀 ideas.md",
        "- a bird table with a camera\n- learn to juggle four\n- write down grandmother's stories\n",
    ),
    (
        "/Documents/Notes/meeting 2025-05-12.txt",
        "Present: Ada, Björn, Chidi, Dolores\n\n1. The summer party moves to 21 June.\n2. Chidi \
         asks for quotes from two caterers.\n3. Parking: nobody volunteers.\n",
    ),
    (
        "/Projects/greenhouse/plan.md",
        "# Greenhouse\n\n| bed | plant | sown |\n|---|---|---|\n| 1 | tomatoes | 3 March |\n\
         | 2 | cucumbers | 20 March |\n| 3 | basil | 1 April |\n",
    ),
    (
        "/Projects/greenhouse/sensors.py",
        "\"\"\"Reads the two thermometers every ten minutes.\"\"\"\nimport time\n\n\
         def mean(values):\n    return sum(values) / len(values)\n\n\
         while True:\n    print(mean([21.4, 22.0]))\n    time.sleep(600)\n",
    ),
    ("/Projects/greenhouse/.gitignore", "__pycache__/\n*.log\n"),
    ("/Projects/empty.txt", ""),
];

/// File, seed and size of what is computed instead of stored.
const LARGE: &[(&str, u64, u64)] = &[
    ("/Videos/holiday-2025.mp4", 2025, 1 << 30),
    ("/Videos/birthday.mp4", 7, 180 << 20),
    ("/Music/Été/01 Matin.flac", 11, 31 << 20),
    ("/Music/Été/02 Midi.flac", 12, 28 << 20),
    ("/Backups/laptop-2025-04.tar.zst", 4, 10 << 30),
];

/// Path, width and height of a picture, and the colours of two of its corners.
type Picture = (&'static str, u32, u32, [u8; 3], [u8; 3]);

const PICTURES: &[Picture] = &[
    (
        "/Pictures/sunset.png",
        320,
        200,
        [255, 170, 60],
        [70, 30, 110],
    ),
    ("/Pictures/sea.png", 320, 200, [190, 230, 255], [0, 70, 120]),
    (
        "/Pictures/Camera Roll/IMG_0001.png",
        160,
        120,
        [40, 120, 40],
        [200, 220, 120],
    ),
    (
        "/Pictures/Camera Roll/IMG_0002.png",
        160,
        120,
        [230, 200, 180],
        [90, 60, 50],
    ),
    (
        "/Pictures/Frühling 🌷/tulpen.png",
        160,
        160,
        [250, 80, 110],
        [60, 150, 60],
    ),
];

/// Fills a drive with the sample.
pub fn populate(drive: &DriveHandle) -> Result<(), SimError> {
    let mut day = FIRST_DAY_MS;
    let mut next_day = || {
        day += DAY_MS;
        Some(day)
    };
    for (path, text) in TEXTS {
        drive.put_at(path, *text, next_day())?;
    }
    for (path, width, height, from, to) in PICTURES {
        drive.put_at(path, png::gradient(*width, *height, *from, *to), next_day())?;
    }
    for &(path, seed, size) in LARGE {
        drive.put_at(path, FileBody::Generated { seed, size }, next_day())?;
    }
    drive.mkdir("/Documents/Empty folder")?;
    Ok(())
}

/// Adds `files` small files below `/Many`, in folders of two hundred.
pub fn populate_many(drive: &DriveHandle, files: u64) -> Result<(), SimError> {
    for first in (0..files).step_by(usize::try_from(FILES_PER_FOLDER).unwrap_or(1)) {
        let folder = first / FILES_PER_FOLDER;
        let path = format!("/Many/{:04}/{folder:05}", folder / FOLDERS_PER_FOLDER);
        let numbers = first..files.min(first + FILES_PER_FOLDER);
        let names = numbers.map(|number| {
            let body = FileBody::Generated {
                seed: number,
                size: 100 + number % 4_000,
            };
            let mtime = FIRST_DAY_MS + i64::try_from(number).unwrap_or(0) * 1000;
            (format!("file {number:07}.txt"), body, mtime)
        });
        drive.put_all(&path, names)?;
    }
    Ok(())
}
