//! A card through NVIDIA's driver, its compiler and its library of matrix products.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, c_int, c_void};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use cudarc::cublaslt::{result as lt, sys as lt_sys};
use cudarc::driver::{result as cu, sys};
use cudarc::nvrtc::{result as nvrtc, sys as nvrtc_sys};

use super::driver::{Argument, Driver, Element, Launch, Product};

/// Memory for matrix products to split sums in: NVIDIA's advice for Hopper (cublasSetWorkspace).
const WORKSPACE: usize = 32 << 20;

/// Pinned memory from which copies to the card start; it is used in turns. Ours.
const STAGING: usize = 8 << 20;

/// From this compute capability on there is bf16 arithmetic and asynchronous copies to shared memory (Ampere).
const OLDEST: (i32, i32) = (8, 0);

/// One NVIDIA GPU with one stream of work.
pub struct Card {
    ordinal: usize,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    module: sys::CUmodule,
    products: lt_sys::cublasLtHandle_t,
    workspace: u64,
    capability: (i32, i32),
    processors: usize,
    name: String,
    kernels: Mutex<HashMap<String, Kernel>>,
    plans: Mutex<HashMap<PlanKey, Plan>>,
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

/// What decides the way a product is computed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct PlanKey {
    sizes: [usize; 3],
    strides: [usize; 3],
    transposed: [bool; 2],
    elements: [Element; 2],
    adds: bool,
    bias: bool,
    /// Low bits of the addresses: which loads are allowed.
    aligned: [bool; 4],
}

struct Plan {
    description: lt_sys::cublasLtMatmulDesc_t,
    /// Of the right side, the left side and the result, as the library orders them.
    layouts: [lt_sys::cublasLtMatrixLayout_t; 3],
    algorithm: lt_sys::cublasLtMatmulAlgo_t,
}

/// Plans to remember; batches of many sizes make many. Ours.
const PLANS: usize = 4096;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Card {
    /// The cards that this machine has; none without NVIDIA's driver.
    pub fn count() -> usize {
        // Safety: looks whether a library can be opened.
        if !unsafe { sys::is_culib_present() } || cu::init().is_err() {
            return 0;
        }
        cu::device::get_count().map_or(0, |count| count.max(0) as usize)
    }

    /// Opens a card, and compiles the kernels where that has not been done on this machine.
    pub fn open(ordinal: usize) -> Result<Arc<Card>> {
        // Safety: looks whether a library can be opened.
        ensure!(
            unsafe { sys::is_culib_present() },
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
        // Safety: look whether libraries can be opened.
        let (compiler, products) =
            unsafe { (nvrtc_sys::is_culib_present(), lt_sys::is_culib_present()) };
        for (there, library, part) in [
            (compiler, "libnvrtc", "compiler"),
            (products, "libcublasLt", "library of matrix products"),
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
        // Safety: the device exists; the context is made current before anything is made in it.
        unsafe {
            let context = cu::primary_ctx::retain(device).map_err(failed)?;
            cu::ctx::set_current(context).map_err(failed)?;
            let stream = cu::stream::create(cu::stream::StreamKind::NonBlocking).map_err(failed)?;
            let load = |program: Vec<u8>| cu::module::load_data(program.as_ptr().cast());
            let module = match load(program(capability, true)?) {
                Ok(module) => module,
                // What was kept may be damaged.
                Err(_) => load(program(capability, false)?)
                    .map_err(failed)
                    .context("the driver does not take the kernels; it may be older than CUDA's libraries: update it")?,
            };
            Ok(Card {
                ordinal,
                device,
                context,
                stream,
                module,
                products: lt::create_handle()
                    .map_err(|error| anyhow::anyhow!("{error}"))
                    .context("CUDA's library of matrix products does not start")?,
                workspace: cu::malloc_sync(WORKSPACE).map_err(failed)?,
                capability,
                processors,
                name,
                kernels: Mutex::default(),
                plans: Mutex::default(),
                staging: Mutex::new(Staging {
                    start: cu::malloc_host(STAGING, 0).map_err(failed)?,
                    used: 0,
                }),
                recording: Mutex::default(),
            })
        }
    }

    pub fn ordinal(&self) -> usize {
        self.ordinal
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

    /// The library's matrices have columns behind each other: its product is that of the transposes, in the other order.
    fn plan(&self, product: &Product) -> Result<Plan> {
        let failed = |error: lt::CublasError| anyhow::anyhow!("{error}");
        let kind = |element| match element {
            Element::F32 => lt_sys::cudaDataType::CUDA_R_32F,
            Element::Bf16 => lt_sys::cudaDataType::CUDA_R_16BF,
        };
        let Product {
            rows,
            depth,
            columns,
            left,
            right,
            ..
        } = *product;
        use lt_sys::cublasLtMatmulDescAttributes_t as Attribute;
        // Safety: handles that have just been made, and attributes with their own types.
        unsafe {
            let description = lt::create_matmul_desc(
                lt_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                lt_sys::cudaDataType::CUDA_R_32F,
            )
            .map_err(failed)?;
            let set = |attribute, value: *const c_void, size| {
                lt::set_matmul_desc_attribute(description, attribute, value, size)
            };
            for (attribute, side) in [
                (Attribute::CUBLASLT_MATMUL_DESC_TRANSA, right),
                (Attribute::CUBLASLT_MATMUL_DESC_TRANSB, left),
            ] {
                let operation = i32::from(side.transposed);
                set(
                    attribute,
                    std::ptr::from_ref(&operation).cast(),
                    size_of::<i32>(),
                )
                .map_err(failed)?;
            }
            if product.bias.is_some() {
                let epilogue = lt_sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
                set(
                    Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE,
                    std::ptr::from_ref(&epilogue).cast(),
                    size_of_val(&epilogue),
                )
                .map_err(failed)?;
                let bias_kind = kind(product.out_element);
                set(
                    Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
                    std::ptr::from_ref(&bias_kind).cast(),
                    size_of_val(&bias_kind),
                )
                .map_err(failed)?;
            }
            let layout = |element, across: usize, down: usize, stride: usize| {
                lt::create_matrix_layout(kind(element), across as u64, down as u64, stride as i64)
                    .map_err(failed)
            };
            let stored = |side: super::Side, rows: usize, columns: usize| {
                let (down, across) = match side.transposed {
                    false => (rows, columns),
                    true => (columns, rows),
                };
                layout(product.element, across, down, side.stride)
            };
            let layouts = [
                stored(right, depth, columns)?,
                stored(left, rows, depth)?,
                layout(product.out_element, columns, rows, product.out_stride)?,
            ];
            let preference = lt::create_matmul_pref().map_err(failed)?;
            let workspace = WORKSPACE;
            lt::set_matmul_pref_attribute(
                preference,
                lt_sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                std::ptr::from_ref(&workspace).cast(),
                size_of::<usize>(),
            )
            .map_err(failed)?;
            use lt_sys::cublasLtMatmulPreferenceAttributes_t as Preference;
            for (attribute, address) in [
                (
                    Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                    right.address,
                ),
                (
                    Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                    left.address,
                ),
                (
                    Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                    product.out,
                ),
                (
                    Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                    product.out,
                ),
            ] {
                let alignment = alignment(address);
                lt::set_matmul_pref_attribute(
                    preference,
                    attribute,
                    std::ptr::from_ref(&alignment).cast(),
                    size_of::<u32>(),
                )
                .map_err(failed)?;
            }
            let found = lt::get_matmul_algo_heuristic(
                self.products,
                description,
                layouts[0],
                layouts[1],
                layouts[2],
                layouts[2],
                preference,
            );
            lt::destroy_matmul_pref(preference).map_err(failed)?;
            let found = found
                .map_err(failed)
                .with_context(|| format!("no way is known to compute {product:?}"))?;
            Ok(Plan {
                description,
                layouts,
                algorithm: found.algo,
            })
        }
    }
}

impl Plan {
    /// # Safety
    /// The plan is not used again.
    unsafe fn destroy(self) {
        // Safety: made by `Card::plan`.
        unsafe {
            let _ = lt::destroy_matmul_desc(self.description);
            for layout in self.layouts {
                let _ = lt::destroy_matrix_layout(layout);
            }
        }
    }
}

/// The largest power of two up to 256 that divides an address.
fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(8)
}

impl Driver for Card {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn versions(&self) -> String {
        // Safety: asks a library for a number.
        let products = unsafe { lt_sys::cublasLtGetVersion() };
        let mut driver = 0;
        // Safety: writes one number.
        let _ = unsafe { sys::cuDriverGetVersion(&mut driver) };
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
        let addresses = [
            product.right.address,
            product.left.address,
            product.out,
            product.bias.unwrap_or(0),
        ];
        let key = PlanKey {
            sizes: [product.rows, product.depth, product.columns],
            strides: [
                product.left.stride,
                product.right.stride,
                product.out_stride,
            ],
            transposed: [product.left.transposed, product.right.transposed],
            elements: [product.element, product.out_element],
            adds: product.beta != 0.0,
            bias: product.bias.is_some(),
            aligned: addresses.map(|address| alignment(address) >= 16),
        };
        let mut plans = lock(&self.plans);
        if !plans.contains_key(&key) {
            if plans.len() >= PLANS {
                for (_, plan) in plans.drain() {
                    // Safety: no longer in the table.
                    unsafe { plan.destroy() };
                }
            }
            plans.insert(key, self.plan(product)?);
        }
        let Some(plan) = plans.get(&key) else {
            bail!("a plan that was just made is missing");
        };
        let one = 1f32;
        // Safety: the plan fits the product, and the operands by the caller's promise.
        unsafe {
            if let Some(bias) = product.bias {
                lt::set_matmul_desc_attribute(
                    plan.description,
                    lt_sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                    std::ptr::from_ref(&bias).cast(),
                    size_of::<u64>(),
                )
                .map_err(|error| anyhow::anyhow!("{error}"))?;
            }
            let name = || {
                let Product {
                    rows,
                    depth,
                    columns,
                    ..
                } = product;
                format!("product {rows} x {depth} x {columns}")
            };
            self.timed(name, || {
                lt::matmul(
                    self.products,
                    plan.description,
                    std::ptr::from_ref(&one).cast(),
                    std::ptr::from_ref(&product.beta).cast(),
                    product.right.address as *const c_void,
                    plan.layouts[0],
                    product.left.address as *const c_void,
                    plan.layouts[1],
                    product.out as *const c_void,
                    plan.layouts[2],
                    product.out as *mut c_void,
                    plan.layouts[2],
                    &plan.algorithm,
                    self.workspace as *mut c_void,
                    WORKSPACE,
                    self.stream.cast(),
                )
                .map_err(|error| anyhow::anyhow!("{error}"))
                .with_context(|| format!("{product:?}"))
            })
        }
    }

    fn synchronise(&self) -> Result<()> {
        self.enter()?;
        // Safety: the stream lives as long as `self`.
        unsafe { cu::stream::synchronize(self.stream) }.map_err(failed)
    }

    fn record(&self) -> Result<()> {
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
            for (_, plan) in lock(&self.plans).drain() {
                plan.destroy();
            }
            let _ = lt::destroy_handle(self.products);
            let _ = cu::free_sync(self.workspace);
            let _ = cu::free_host(lock(&self.staging).start);
            let _ = cu::module::unload(self.module);
            let _ = cu::stream::destroy(self.stream);
            let _ = cu::primary_ctx::release(self.device);
        }
    }
}

/// The kernels for a compute capability, as the driver loads them: from the cache where that will do, or compiled and cached.
fn program(capability: (i32, i32), cached_too: bool) -> Result<Vec<u8>> {
    let architecture = format!("sm_{}{}", capability.0, capability.1);
    let (mut major, mut minor) = (0, 0);
    // Safety: writes two numbers.
    unsafe { nvrtc_sys::nvrtcVersion(&mut major, &mut minor) };
    let key = blake3::hash(format!("{architecture} {major}.{minor} {}", super::SOURCE).as_bytes());
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
    let source = CString::new(super::SOURCE)?;
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
                "CUDA's compiler does not take the kernels; CUDA 12.0 is the oldest that does: {}",
                String::from_utf8_lossy(&log).trim_end_matches('\0')
            );
        }
        let mut size = 0;
        nvrtc_sys::nvrtcGetCUBINSize(program, &mut size)
            .result()
            .map_err(failed)?;
        let mut image = vec![0u8; size];
        nvrtc_sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast())
            .result()
            .map_err(failed)?;
        nvrtc::destroy_program(program).map_err(failed)?;
        Ok(image)
    }
}

fn failed(error: cu::DriverError) -> anyhow::Error {
    anyhow::anyhow!("CUDA: {}", told(&error))
}

fn told(error: &cu::DriverError) -> String {
    error
        .error_string()
        .map(CStr::to_string_lossy)
        .map_or_else(|_| format!("{:?}", error.0), |text| text.into_owned())
}
