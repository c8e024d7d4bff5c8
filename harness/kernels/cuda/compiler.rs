//! The kernels compiled for a card, on the machine that has it, and kept for the next process.

use std::ffi::CString;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cudarc::nvrtc::{result as nvrtc, sys};

use super::SOURCE;

/// Whether CUDA's compiler can be opened here.
pub fn is_there() -> bool {
    // Safety: looks whether a library can be opened.
    unsafe { sys::is_culib_present() }
}

/// The kernels for a compute capability, as the driver loads them: from the cache where that will do, or compiled and cached.
pub fn program(capability: (i32, i32), cached_too: bool) -> Result<Vec<u8>> {
    let architecture = format!("sm_{}{}", capability.0, capability.1);
    let (mut major, mut minor) = (0, 0);
    // Safety: writes two numbers.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
    let key = blake3::hash(format!("{architecture} {major}.{minor} {}", SOURCE).as_bytes());
    let cached =
        cache().map(|folder| folder.join(format!("kernels-{}.cubin", &key.to_hex()[..32])));
    if cached_too && let Some(program) = cached.as_ref().and_then(|path| std::fs::read(path).ok()) {
        return Ok(program);
    }
    let program = compile(&architecture)?;
    if let Some(path) = cached {
        // Without a cache the next process compiles again; nothing else is lost.
        let _ = keep(&path, &program);
    }
    Ok(program)
}

/// Writes beside the target, then renames: another process never reads half of it.
fn keep(path: &Path, program: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file without a folder")?;
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(program)?;
    file.persist(path)?;
    Ok(())
}

/// The user's folder of things that can be made again.
fn cache() -> Option<PathBuf> {
    let of = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache")))?;
    Some(base.join("xlt"))
}

fn compile(architecture: &str) -> Result<Vec<u8>> {
    let source = CString::new(SOURCE)?;
    let failed = |error: nvrtc::NvrtcError| anyhow::anyhow!("{error:?}");
    let program = nvrtc::create_program(&source, Some(c"kernels.cu")).map_err(failed)?;
    // Safety: the program has just been made, and is destroyed once.
    unsafe {
        let options = [
            format!("--gpu-architecture={architecture}"),
            "--std=c++17".to_owned(),
        ];
        let compiled = nvrtc::compile_program(program, &options);
        if compiled.is_err() {
            let log = nvrtc::get_program_log(program).unwrap_or_default();
            let log: Vec<u8> = log.into_iter().map(|c| c as u8).collect();
            let _ = nvrtc::destroy_program(program);
            bail!(
                "CUDA's compiler does not take the kernels; it must be of CUDA 12.0 or later, and as new as the card: {}",
                String::from_utf8_lossy(&log).trim_end_matches('\0')
            );
        }
        let mut size = 0;
        sys::nvrtcGetCUBINSize(program, &mut size)
            .result()
            .map_err(failed)?;
        let mut image = vec![0u8; size];
        sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast())
            .result()
            .map_err(failed)?;
        nvrtc::destroy_program(program).map_err(failed)?;
        Ok(image)
    }
}
