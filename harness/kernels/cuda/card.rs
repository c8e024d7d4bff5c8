//! A card through NVIDIA's driver.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use cudarc::driver::{result as cu, sys};

use super::driver::{Argument, Driver, Launch, Product};
use super::products::Products;
use super::{compiler, products};

/// Pinned memory from which copies to the card start; it is used in turns. Ours.
const STAGING: usize = 8 << 20;

/// From this compute capability on there is bf16 arithmetic and asynchronous copies to shared memory (Ampere).
const OLDEST: (i32, i32) = (8, 0);

/// One NVIDIA GPU with one stream of work.
pub struct Card {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    module: sys::CUmodule,
    products: Products,
    capability: (i32, i32),
    processors: usize,
    name: String,
    kernels: Mutex<HashMap<String, Kernel>>,
    /// Bytes of shared memory that a block may have.
    shared: usize,
    staging: Mutex<Staging>,
    recording: Mutex<Option<Vec<Recorded>>>,
}

/// The events before and after a kernel.
struct Recorded {
    name: String,
    events: [sys::CUevent; 2],
}

// Safety: handles of NVIDIA's libraries, which may be used from any thread that has made the context its own; every call does.
unsafe impl Send for Card {}
// Safety: as above; what changes is behind a mutex.
unsafe impl Sync for Card {}

#[derive(Clone, Copy)]
struct Kernel {
    function: sys::CUfunction,
    /// Dynamic shared memory it may have so far.
    shared: usize,
}

struct Staging {
    start: *mut c_void,
    used: usize,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Card {
    /// Whether NVIDIA's driver is on this machine.
    pub fn driver_is_there() -> bool {
        // Safety: looks whether a library can be opened.
        unsafe { sys::is_culib_present() }
    }

    /// The cards that this machine has; none without NVIDIA's driver.
    pub fn count() -> usize {
        if !Card::driver_is_there() || cu::init().is_err() {
            return 0;
        }
        cu::device::get_count().map_or(0, |count| count.max(0) as usize)
    }

    /// Opens a card, and compiles the kernels where that has not been done on this machine.
    pub fn open(ordinal: usize) -> Result<Arc<Card>> {
        ensure!(
            Card::driver_is_there(),
            "NVIDIA's driver (libcuda) is not on this machine; install it, or use `--device cpu`"
        );
        if let Err(error) = cu::init() {
            bail!(
                "NVIDIA's driver does not start ({}); see `nvidia-smi`, or use `--device cpu`",
                told(&error)
            );
        }
        let count = Card::count();
        ensure!(
            ordinal < count,
            "there is no card {ordinal}: this machine has {count}, counted from 0; see `nvidia-smi`, or use `--device cpu`"
        );
        for (there, library, part) in [
            (compiler::is_there(), "libnvrtc", "compiler"),
            (
                products::is_there(),
                "libcublasLt",
                "library of matrix products",
            ),
        ] {
            ensure!(
                there,
                "CUDA's {part} ({library}) is not found; install the CUDA toolkit, and name its folder of libraries in LD_LIBRARY_PATH"
            );
        }
        let card =
            Card::opened(ordinal).with_context(|| format!("card {ordinal} cannot be used"))?;
        Ok(Arc::new(card))
    }

    fn opened(ordinal: usize) -> Result<Card> {
        let device = cu::device::get(ordinal as c_int).map_err(failed)?;
        let attribute = |attribute| -> Result<i32> {
            // Safety: the device exists.
            unsafe { cu::device::get_attribute(device, attribute) }.map_err(failed)
        };
        use sys::CUdevice_attribute as Attribute;
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let name = cu::device::get_name(device).map_err(failed)?;
        ensure!(
            capability >= OLDEST,
            "{name} has compute capability {}.{}, and {}.{} is the oldest that the kernels run on; use another card or `--device cpu`",
            capability.0,
            capability.1,
            OLDEST.0,
            OLDEST.1
        );
        let processors =
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1) as usize;
        let shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?
            .max(0) as usize;
        // Before anything is held: what is most likely to be missing or too old.
        let kernels = compiler::program(capability, true)?;
        // Safety: the device exists; the context is made current before anything is made in it.
        unsafe {
            let context = cu::primary_ctx::retain(device).map_err(failed)?;
            cu::ctx::set_current(context).map_err(failed)?;
            let stream = cu::stream::create(cu::stream::StreamKind::NonBlocking).map_err(failed)?;
            let load = |program: &[u8]| cu::module::load_data(program.as_ptr().cast());
            let module = match load(&kernels) {
                Ok(module) => module,
                // What was kept may be damaged.
                Err(_) => load(&compiler::program(capability, false)?)
                    .map_err(failed)
                    .context("the driver does not take the kernels; it may be older than CUDA's libraries: update it")?,
            };
            Ok(Card {
                device,
                context,
                stream,
                module,
                products: Products::open()?,
                capability,
                processors,
                name,
                kernels: Mutex::default(),
                shared,
                staging: Mutex::new(Staging {
                    start: cu::malloc_host(STAGING, 0).map_err(failed)?,
                    used: 0,
                }),
                recording: Mutex::default(),
            })
        }
    }

    fn enter(&self) -> Result<()> {
        // Safety: the context lives as long as `self`.
        unsafe { cu::ctx::set_current(self.context) }.map_err(failed)
    }

    /// Runs `work`, between two events where times are taken.
    fn timed(&self, name: impl Fn() -> String, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut recording = lock(&self.recording);
        let Some(recorded) = recording.as_mut() else {
            return work();
        };
        let event = || cu::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(failed);
        let events = [event()?, event()?];
        // Safety: events just made, and the stream of `self`.
        unsafe {
            cu::event::record(events[0], self.stream).map_err(failed)?;
            work()?;
            cu::event::record(events[1], self.stream).map_err(failed)?;
        }
        recorded.push(Recorded {
            name: name(),
            events,
        });
        Ok(())
    }

    fn kernel(&self, launch: &Launch) -> Result<sys::CUfunction> {
        let mut kernels = lock(&self.kernels);
        let found = kernels.get(launch.kernel).copied();
        let mut kernel = match found {
            Some(kernel) if kernel.shared >= launch.shared => return Ok(kernel.function),
            Some(kernel) => kernel,
            None => {
                let name = CString::new(launch.kernel)?;
                // Safety: the module is loaded.
                let function = unsafe { cu::module::get_function(self.module, name) }
                    .map_err(failed)
                    .with_context(|| format!("kernel `{}`", launch.kernel))?;
                // What every kernel may have without asking.
                Kernel {
                    function,
                    shared: 48 << 10,
                }
            }
        };
        if launch.shared > kernel.shared {
            use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // Safety: the function is of the loaded module.
            unsafe {
                cu::function::set_function_attribute(
                    kernel.function,
                    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                    launch.shared as i32,
                )
            }
            .map_err(failed)
            .with_context(|| {
                format!(
                    "{} needs {} bytes of shared memory",
                    launch.kernel, launch.shared
                )
            })?;
            kernel.shared = launch.shared;
        }
        kernels.insert(launch.kernel.to_owned(), kernel);
        Ok(kernel.function)
    }
}

impl Driver for Card {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn versions(&self) -> String {
        let products = products::version();
        let driver = driver_version();
        format!(
            "sm_{}{}, cuda {}.{}, cublasLt {products}",
            self.capability.0,
            self.capability.1,
            driver / 1000,
            driver % 1000 / 10
        )
    }

    fn processors(&self) -> usize {
        self.processors
    }

    fn shared_memory(&self) -> usize {
        self.shared
    }

    fn memory(&self) -> Result<(u64, u64)> {
        self.enter()?;
        let (free, all) = cu::mem_get_info().map_err(failed)?;
        Ok((free as u64, all as u64))
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.enter()?;
        // Safety: memory is written before it is read by whoever asks for it.
        match unsafe { cu::malloc_sync(bytes) } {
            Ok(address) => Ok(address),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, all) = self.memory()?;
                Err(super::operations::OutOfMemory {
                    wanted: bytes as u64,
                    free,
                    all,
                }
                .into())
            }
            Err(error) => Err(failed(error)),
        }
    }

    unsafe fn release(&self, address: u64) {
        if self.enter().is_ok() {
            // Safety: by the caller's promise; waits for work that uses it.
            let _ = unsafe { cu::free_sync(address) };
        }
    }

    unsafe fn upload(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.enter()?;
        let mut staging = lock(&self.staging);
        for (index, part) in bytes.chunks(STAGING).enumerate() {
            if staging.used + part.len() > STAGING {
                self.synchronise()?;
                staging.used = 0;
            }
            // Safety: there is room, and nothing under way reads it: the stream was waited for when the turn began.
            unsafe {
                let place = staging.start.cast::<u8>().add(staging.used);
                std::ptr::copy_nonoverlapping(part.as_ptr(), place, part.len());
                let pinned = std::slice::from_raw_parts(place, part.len());
                cu::memcpy_htod_async(to + (index * STAGING) as u64, pinned, self.stream)
                    .map_err(failed)?;
            }
            staging.used = (staging.used + part.len()).next_multiple_of(64);
        }
        Ok(())
    }

    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.enter()?;
        let mut staging = lock(&self.staging);
        for (index, part) in bytes.chunks_mut(STAGING).enumerate() {
            // Copies from the staging memory are over, too, when the stream has been waited for.
            if staging.used + part.len() > STAGING {
                self.synchronise()?;
                staging.used = 0;
            }
            // Safety: there is room; the copy is over before it is read.
            unsafe {
                let place = staging.start.cast::<u8>().add(staging.used);
                let pinned = std::slice::from_raw_parts_mut(place, part.len());
                cu::memcpy_dtoh_async(pinned, from + (index * STAGING) as u64, self.stream)
                    .map_err(failed)?;
                self.synchronise()?;
                part.copy_from_slice(pinned);
            }
            staging.used = 0;
        }
        Ok(())
    }

    unsafe fn clear(&self, at: u64, bytes: usize) -> Result<()> {
        self.enter()?;
        // Safety: by the caller's promise.
        unsafe { cu::memset_d8_async(at, 0, bytes, self.stream) }.map_err(failed)
    }

    unsafe fn launch(&self, launch: &Launch, arguments: &[Argument]) -> Result<()> {
        self.enter()?;
        let function = self.kernel(launch)?;
        let mut pointers: Vec<*mut c_void> = arguments.iter().map(Argument::pointer).collect();
        let [gx, gy, gz] = launch.grid;
        let [bx, by, bz] = launch.block;
        self.timed(
            || launch.kernel.to_owned(),
            || {
                // Safety: by the caller's promise.
                unsafe {
                    cu::launch_kernel(
                        function,
                        (gx, gy, gz),
                        (bx, by, bz),
                        launch.shared as u32,
                        self.stream,
                        &mut pointers,
                    )
                }
                .map_err(failed)
            },
        )
        .with_context(|| format!("{launch:?}"))
    }

    unsafe fn multiply(&self, product: &Product) -> Result<()> {
        self.enter()?;
        let name = || {
            let Product {
                rows,
                depth,
                columns,
                ..
            } = product;
            format!("product {rows} x {depth} x {columns}")
        };
        // Safety: by the caller's promise.
        self.timed(name, || unsafe {
            self.products.multiply(product, self.stream)
        })
    }

    fn synchronise(&self) -> Result<()> {
        self.enter()?;
        // Safety: the stream lives as long as `self`.
        unsafe { cu::stream::synchronize(self.stream) }.map_err(failed)
    }

    fn record(&self) -> Result<()> {
        // The bindings measure between events with a function of CUDA 12.8.
        if driver_version() < 12_080 {
            return Ok(());
        }
        *lock(&self.recording) = Some(Vec::new());
        Ok(())
    }

    fn recorded(&self) -> Result<BTreeMap<String, f64>> {
        self.synchronise()?;
        let mut times = BTreeMap::new();
        for Recorded { name, events } in lock(&self.recording).take().unwrap_or_default() {
            // Safety: events of this stream, which have been reached; each is destroyed once.
            unsafe {
                let elapsed = cu::event::elapsed(events[0], events[1]).map_err(failed)?;
                *times.entry(name).or_default() += f64::from(elapsed);
                for event in events {
                    cu::event::destroy(event).map_err(failed)?;
                }
            }
        }
        Ok(times)
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        if self.enter().is_err() || self.synchronise().is_err() {
            return;
        }
        // Safety: everything was made by `open`, and nothing uses it any more.
        unsafe {
            self.products.close();
            let _ = cu::free_host(lock(&self.staging).start);
            let _ = cu::module::unload(self.module);
            let _ = cu::stream::destroy(self.stream);
            let _ = cu::primary_ctx::release(self.device);
        }
    }
}

/// As 13000 for 13.0; 0 where it cannot be told.
fn driver_version() -> i32 {
    let mut version = 0;
    // Safety: writes one number.
    let _ = unsafe { sys::cuDriverGetVersion(&mut version) };
    version
}

pub(super) fn failed(error: cu::DriverError) -> anyhow::Error {
    anyhow::anyhow!("CUDA: {}", told(&error))
}

fn told(error: &cu::DriverError) -> String {
    error
        .error_string()
        .map(CStr::to_string_lossy)
        .map_or_else(|_| format!("{:?}", error.0), |text| text.into_owned())
}
