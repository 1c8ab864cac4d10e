//! The reader of cloud-init volumes against images of the tools that Proxmox VE runs, and against all that can happen to
//! them.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use pve_public_ip::guest::storage::Format;
use pve_public_ip::system::image::{Image, ImageError};
use tempfile::TempDir;

/// As Proxmox VE calls it, `-J` since PVE 9. Source: qemu-server `PVE/QemuServer/Cloudinit.pm`.
const PVE8: &[&str] = &["genisoimage", "-quiet", "-iso-level", "3", "-R", "-V", "cidata"];
const PVE9: &[&str] = &["genisoimage", "-quiet", "-iso-level", "3", "-R", "-J", "-V", "cidata"];
const XORRISO: &[&str] = &["xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-V", "cidata"];

/// Proxmox VE's volumes have this size, whatever is in them.
const VOLUME: u64 = 4 << 20;

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program} ({error}); `make setup` installs it"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A directory with a raw volume of these files, made by one of the tools.
struct Made {
    directory: TempDir,
    raw: PathBuf,
}

impl Made {
    fn new(tool: &[&str], files: &[(&str, Vec<u8>)]) -> Self {
        let directory = TempDir::new().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        for (name, content) in files {
            fs::create_dir_all(tree.join(name).parent().unwrap()).unwrap();
            fs::write(tree.join(name), content).unwrap();
        }
        let raw = directory.path().join("vm-100-cloudinit.raw");
        let arguments = [&tool[1..], &["-o", raw.to_str().unwrap(), tree.to_str().unwrap()]].concat();
        run(tool[0], &arguments);
        let file = fs::OpenOptions::new().write(true).open(&raw).unwrap();
        file.set_len(file.metadata().unwrap().len().max(VOLUME)).unwrap();
        Self { directory, raw }
    }

    fn usual() -> Self {
        Self::new(PVE9, &usual())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The volume as a qcow2 file, with these further arguments of `qemu-img convert`.
    fn qcow2(&self, arguments: &[&str]) -> PathBuf {
        let path = self.path("vm-100-cloudinit.qcow2");
        let fixed = ["convert", "-f", "raw", "-O", "qcow2"];
        run("qemu-img", &[&fixed, arguments, &[self.raw.to_str().unwrap(), path.to_str().unwrap()]].concat());
        path
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.raw).unwrap()
    }
}

/// What Proxmox VE puts into an image.
fn usual() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("meta-data", b"instance-id: 3da541559918a808c2402bba5012f6c60b27661c\n".to_vec()),
        ("network-config", b"version: 1\nconfig:\n".to_vec()),
        ("user-data", b"#cloud-config\nhostname: web\n".to_vec()),
        ("vendor-data", Vec::new()),
    ]
}

#[track_caller]
fn holds(path: &Path, format: Format, files: &[(&str, Vec<u8>)]) {
    let image = Image::open(path, format).unwrap();
    assert_eq!(image.label(), "cidata");
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    assert_eq!(image.names().into_iter().collect::<Vec<_>>(), names);
    for (name, content) in files {
        assert!(image.file(name).unwrap().as_ref() == Some(content), "{name} differs");
    }
    assert_eq!(image.file("no-such-file").unwrap(), None);
}

#[track_caller]
fn refused(path: &Path, format: Format) -> String {
    reads(Image::open(path, format)).unwrap_err()
}

/// Everything that a check reads of an image; the error as an administrator sees it.
fn reads(image: Result<Image, ImageError>) -> Result<(), String> {
    let all = || {
        let image = image?;
        for name in image.names() {
            image.file(name)?;
        }
        Ok(())
    };
    all().map_err(|error: ImageError| format!("{:#}", anyhow::Error::from(error)))
}

fn in_memory(bytes: Vec<u8>, format: Format) -> Result<(), String> {
    reads(Image::read(Path::new("image"), Box::new(bytes), format))
}

#[test]
fn reads_what_the_tools_make() {
    for tool in [PVE8, PVE9, XORRISO] {
        let made = Made::new(tool, &usual());
        holds(&made.raw, Format::Raw, &usual());
    }
    // Sizes around the bounds of a sector, and the largest that Proxmox VE takes.
    let content = |size: usize| (0..size).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect::<Vec<u8>>();
    let sizes = [1, 2047, 2048, 2049, 4096, 1 << 20];
    let long = format!("{}é.yaml", "x".repeat(200));
    let mut files: Vec<(String, Vec<u8>)> = sizes.map(|size| (format!("file-{size:07}"), content(size))).to_vec();
    files.push((long, content(10)));
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, content)| (name.as_str(), content.clone())).collect();
    for tool in [PVE8, PVE9] {
        holds(&Made::new(tool, &files).raw, Format::Raw, &files);
    }
    // A directory of several sectors.
    let many: Vec<(String, Vec<u8>)> = (0..200).map(|i| (format!("file-{i:03}"), content(i))).collect();
    let many: Vec<(&str, Vec<u8>)> = many.iter().map(|(name, content)| (name.as_str(), content.clone())).collect();
    holds(&Made::new(PVE8, &many).raw, Format::Raw, &many);
}

#[test]
fn reads_a_block_device_by_its_link() {
    let made = Made::usual();
    let output = Command::new("losetup").args(["--find", "--show", "--read-only"]).arg(&made.raw).output().unwrap();
    assert!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr));
    let device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let link = made.path("vm-100-cloudinit");
    std::os::unix::fs::symlink(&device, &link).unwrap();
    let found = std::panic::catch_unwind(|| holds(&link, Format::Raw, &usual()));
    run("losetup", &["--detach", &device]);
    found.unwrap();
}

#[test]
fn reads_qcow2_of_every_kind_that_is_whole() {
    let made = Made::usual();
    for options in [
        &[][..],
        &["-o", "cluster_size=512"],
        &["-o", "cluster_size=4k"],
        &["-o", "cluster_size=2M"],
        &["-o", "compat=0.10"],
        &["-o", "compat=0.10,cluster_size=512"],
        &["-o", "preallocation=metadata"],
        &["-o", "preallocation=full"],
        &["-o", "lazy_refcounts=on"],
        &["-o", "compression_type=zstd"],
        // Not even zeros are left out.
        &["-S", "0"],
    ] {
        holds(&made.qcow2(options), Format::Qcow2, &usual());
    }
    // As Proxmox VE does it: into a file that is there already and larger.
    let path = made.path("dd.qcow2");
    run("qemu-img", &["create", "-q", "-f", "qcow2", path.to_str().unwrap(), "8M"]);
    let (from, to) = (made.raw.to_str().unwrap(), path.to_str().unwrap());
    run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "qcow2", from, to]);
    holds(&path, Format::Qcow2, &usual());
    // A snapshot of the guest leaves the clusters shared, and an older table beside the one that counts.
    run("qemu-img", &["snapshot", "-c", "before", to]);
    holds(&path, Format::Qcow2, &usual());
}

#[test]
fn says_why_it_refuses_a_qcow2_file() {
    let made = Made::usual();
    let whole = made.qcow2(&[]);
    let to = made.path("other.qcow2");
    let (from, to_text) = (whole.to_str().unwrap(), to.to_str().unwrap());
    let data = format!("data_file={},data_file_raw=on", made.path("data.raw").display());
    for (arguments, reason) in [
        (&["convert", "-c", "-O", "qcow2", from, to_text][..], "has compressed clusters"),
        (&["create", "-q", "-f", "qcow2", "-b", from, "-F", "qcow2", to_text], "has a backing file"),
        (
            &["convert", "-O", "qcow2", "-o", "extended_l2=on", from, to_text],
            "uses features of qcow2 that are not known here (0x10)",
        ),
        (&["create", "-q", "-f", "qcow2", "-o", &data, to_text, "4M"], "keeps its data in another file"),
        (&["create", "-q", "-f", "qcow2", to_text, "4M"], "holds no ISO 9660 file system"),
        (&["create", "-q", "-f", "qcow2", to_text, "1k"], "has only 1024 bytes"),
    ] {
        run("qemu-img", arguments);
        let message = refused(&to, Format::Qcow2);
        assert!(message.contains(reason) && message.contains(to_text), "{arguments:?} gave {message:?}");
        let _ = fs::remove_file(&to);
    }
    // As `qemu-img` writes it for AES and LUKS; to make a LUKS volume it measures the processor, which fails on a busy machine.
    for method in [1, 2] {
        let mut bytes = fs::read(&whole).unwrap();
        bytes[32..36].copy_from_slice(&u32::to_be_bytes(method));
        fs::write(&to, bytes).unwrap();
        let message = refused(&to, Format::Qcow2);
        assert!(message.contains("is encrypted") && message.contains(to_text), "{message}");
    }
    let message = refused(&made.raw, Format::Qcow2);
    assert!(message.contains("the qcow2 file is none, but has the name of one"), "{message}");
    // What is in a raw volume is never taken for a format of its own.
    let message = refused(&whole, Format::Raw);
    assert!(message.contains("holds no ISO 9660 file system"), "{message}");
}

#[test]
fn says_what_is_broken_in_a_qcow2_file() {
    let made = Made::usual();
    let good = fs::read(made.qcow2(&[])).unwrap();
    in_memory(good.clone(), Format::Qcow2).unwrap();
    let word = |at: usize| usize::try_from(u64::from_be_bytes(good[at..at + 8].try_into().unwrap())).unwrap();
    let table = word(40);
    let second = word(table) & 0x00ff_ffff_ffff_fe00;
    for (at, value, reason) in [
        (4, &[0, 0, 0, 1][..], "is of version 1 of qcow2"),
        (20, &[0, 0, 0, 8], "has clusters of 2^8 bytes"),
        (20, &[0, 0, 0, 22], "has clusters of 2^22 bytes"),
        (36, &[0xff; 4], "has a table of clusters beyond its end"),
        (36, &[0; 4], "has a table of clusters that is too short for its size"),
        (40, &[0xff; 8], "has a table of clusters beyond its end"),
        (24, &[0, 0, 0, 0, 0, 0, 0, 9], "has only 9 bytes"),
        (79, &[2], "is marked as corrupt"),
        (table, &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0], "has a table of clusters beyond its end"),
        (second, &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], "has a cluster beyond its end"),
        (second, &[0, 0, 0, 0, 0, 0, 2, 0], "or across the bounds of clusters"),
    ] {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        let message = in_memory(bytes, Format::Qcow2).unwrap_err();
        assert!(message.contains(reason), "{value:?} at {at} gave {message:?}, not {reason:?}");
    }
}

/// Where the record of the root directory's file with this mangled name begins.
fn record(bytes: &[u8], name: &str) -> usize {
    let found = bytes.windows(name.len()).position(|window| window == name.as_bytes());
    found.unwrap_or_else(|| panic!("no {name} in the image")) - 33
}

#[test]
fn says_what_is_broken_in_a_file_system() {
    let good = Made::usual().bytes();
    let network = record(&good, "NETWORK_CONFIG.;1");
    let meta = record(&good, "META_DATA.;1");
    let within = |record: usize, field: &[u8]| {
        record + good[record..record + 255].windows(field.len()).position(|window| window == field).unwrap()
    };
    let pvd = 16 * 2048;
    let root_directory =
        2048 * usize::try_from(u32::from_le_bytes(good[pvd + 158..pvd + 162].try_into().unwrap())).unwrap();
    for (at, value, reason) in [
        (pvd + 1, &b"CD002"[..], "holds no ISO 9660 file system"),
        (pvd, &[2], "has a volume descriptor of type 2 version 1"),
        (pvd + 128, &[0, 4, 4, 0], "has blocks of 1024 bytes, not 2048"),
        (pvd + 128, &[0, 4], "contradicts itself: the size of a block is 1024 or 2048"),
        (pvd + 80, &[0, 0, 1, 0, 0, 1, 0, 0], "is cut off: 134217728 bytes of file system in a volume of 4194304"),
        (pvd + 80, &[0xff], "contradicts itself: the size of the volume"),
        (pvd + 166, &[0, 0, 0x10, 0, 0, 0x10, 0, 0], "has a file beyond its end"),
        (pvd + 166, &[0, 0, 2, 0, 0, 2, 0, 0], "has a root directory of 131072 bytes that is none"),
        (pvd + 181, &[0], "has a root directory of 2048 bytes that is none"),
        (root_directory, &[0x10], "has a directory record that is cut off"),
        (root_directory + 33, &[1], "has a directory that does not begin with itself"),
        (root_directory + 34, b"XX", "has no Rock Ridge names"),
        (network + 2, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "has a file beyond its end"),
        (network + 10, &[9], "contradicts itself: the size of a file is"),
        (network + 25, &[0x80], "has a file in several parts"),
        (network + 26, &[1], "has a file in several parts"),
        (network + 1, &[1], "or with extended attributes"),
        (network + 32, &[0xff], "has a directory record whose name is cut off"),
        (network, &[0x22], "has a directory record whose name is cut off"),
        (within(network, b"NM"), b"XX", "has a file without a Rock Ridge name and mode"),
        (within(network, b"PX"), b"XX", "has a file without a Rock Ridge name and mode"),
        (within(network, b"PX"), b"ZF", "has a compressed file"),
        (within(network, b"NM") + 4, &[2], "has a file with the name of a directory's link to itself"),
        (within(network, b"NM") + 2, &[4], "has a Rock Ridge name without flags"),
        (within(network, b"NM") + 2, &[200], "has a Rock Ridge field that is cut off"),
        (within(network, b"network-config"), &[0xff], "has a file without a Rock Ridge name and mode"),
        // A symbolic link.
        (
            within(network, b"PX") + 4,
            &[0, 0xa0, 0, 0, 0, 0, 0xa0, 0],
            "has a `network-config` that is no ordinary file",
        ),
        (within(meta, b"meta-data"), b"user-data", "has two files named `user-data`"),
    ] {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        let message = in_memory(bytes, Format::Raw).unwrap_err();
        assert!(message.contains(reason), "{value:?} at {at} gave {message:?}, not {reason:?}");
    }
    for (length, reason) in [(0, "has only 0 bytes"), (pvd, "has only 32768 bytes"), (pvd + 2048, "is cut off")] {
        let message = in_memory(good[..length].to_vec(), Format::Raw).unwrap_err();
        assert!(message.contains(reason), "{length} bytes gave {message:?}");
    }
}

/// A continuation that continues into itself.
#[test]
fn does_not_follow_rock_ridge_in_a_circle() {
    let long = "x".repeat(250);
    let made = Made::new(PVE8, &[(long.as_str(), b"x".to_vec())]);
    holds(&made.raw, Format::Raw, &[(long.as_str(), b"x".to_vec())]);
    let mut bytes = made.bytes();
    let record = record(&bytes, "XXXXXXXX");
    let at = record + bytes[record..record + 255].windows(2).position(|window| window == b"CE").unwrap();
    // The field points at itself.
    let (block, offset) = (u32::try_from(at / 2048).unwrap(), u32::try_from(at % 2048).unwrap());
    let both = |value: u32| [value.to_le_bytes(), value.to_be_bytes()].concat();
    bytes[at + 4..at + 28].copy_from_slice(&[both(block), both(offset), both(28)].concat());
    let message = in_memory(bytes.clone(), Format::Raw).unwrap_err();
    assert!(message.contains("has a Rock Ridge field that goes on and on"), "{message}");
    bytes[at + 4..at + 12].copy_from_slice(&both(u32::MAX));
    let message = in_memory(bytes, Format::Raw).unwrap_err();
    assert!(message.contains("has Rock Ridge fields beyond its end"), "{message}");
}

#[test]
fn refuses_what_is_no_volume() {
    let made = Made::usual();
    let link = made.path("link.raw");
    std::os::unix::fs::symlink(&made.raw, &link).unwrap();
    let fifo = made.path("fifo.raw");
    run("mkfifo", &[fifo.to_str().unwrap()]);
    let device = made.path("null");
    std::os::unix::fs::symlink("/dev/zero", &device).unwrap();
    let directory = made.directory.path().to_owned();
    for (path, reason) in [
        (link, "Too many levels of symbolic links"),
        (device, "Too many levels of symbolic links"),
        (fifo, "neither a regular file nor a block device"),
        (directory, "neither a regular file nor a block device"),
        (made.path("missing.raw"), "No such file or directory"),
    ] {
        let message = refused(&path, Format::Raw);
        assert!(message.contains(reason), "{} gave {message:?}", path.display());
        assert!(message.starts_with(&format!("cannot read the cloud-init image `{}`", path.display())), "{message}");
    }
}

#[test]
fn huge_volumes_cost_nothing() {
    let made = Made::new(PVE8, &[("network-config", vec![b'#'; (1 << 20) + 1]), ("user-data", b"x".to_vec())]);
    let message = refused(&made.raw, Format::Raw);
    assert!(message.contains("has a `network-config` of 1048577 bytes, more than 1 MiB"), "{message}");
    let image = Image::open(&made.raw, Format::Raw).unwrap();
    assert_eq!(image.file("user-data").unwrap().as_deref(), Some(&b"x"[..]));
    // 8 TiB that are not there.
    fs::OpenOptions::new().write(true).open(&made.raw).unwrap().set_len(8 << 40).unwrap();
    let image = Image::open(&made.raw, Format::Raw).unwrap();
    assert_eq!(image.file("user-data").unwrap().as_deref(), Some(&b"x"[..]));
    let sparse = made.path("sparse.qcow2");
    run("qemu-img", &["create", "-q", "-f", "qcow2", sparse.to_str().unwrap(), "8T"]);
    let message = refused(&sparse, Format::Qcow2);
    assert!(message.contains("holds no ISO 9660 file system"), "{message}");
}

/// Whatever happens to an image, reading it ends, without a panic.
#[test]
fn survives_any_change() {
    let raw = Made::usual();
    let images =
        [(raw.bytes(), Format::Raw), (fs::read(raw.qcow2(&["-o", "cluster_size=512"])).unwrap(), Format::Qcow2)];
    let mut intact = 0;
    for (good, format) in &images {
        // What the reader looks at.
        let interesting: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
        let change = (proptest::sample::select(interesting), any::<u8>(), 0_usize..64);
        let changes = proptest::collection::vec(change, 1..6);
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
        let survived = runner.run(&changes, |changes| {
            let mut bytes = good.clone();
            for (at, value, after) in changes {
                let at = (at + after).min(bytes.len() - 1);
                bytes[at] = value;
            }
            let _ = in_memory(bytes, *format);
            Ok(())
        });
        survived.unwrap();
        intact += u8::from(in_memory(good.clone(), *format).is_ok());
    }
    assert_eq!(intact, 2);
}

proptest! {
    #[test]
    fn survives_anything(bytes in proptest::collection::vec(any::<u8>(), 0..4000), start in 0_usize..2) {
        let _ = in_memory([vec![0; start * 16 * 2048], bytes.clone()].concat(), Format::Raw);
        let _ = in_memory([b"QFI\xfb\0\0\0\x03".to_vec(), bytes].concat(), Format::Qcow2);
    }
}
