//! Matrix products through NVIDIA's library: for each kind of product a plan, made once.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use cudarc::cublaslt::{result as lt, sys};
use cudarc::driver::result as cu;
use cudarc::driver::sys::CUstream;

use super::card::{failed, lock};
use super::driver::{Element, Product, Side};

/// Memory for matrix products to split sums in: NVIDIA's advice for Hopper (cublasSetWorkspace).
const WORKSPACE: usize = 32 << 20;

/// The library with its plans; used in the context in which it was opened.
pub struct Products {
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    plans: Mutex<HashMap<PlanKey, Plan>>,
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
    /// Of the addresses: a plan follows from its key alone, whichever product came first.
    alignments: [u32; 4],
}

struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    /// Of the right side, the left side and the result, as the library orders them.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// Plans to remember; batches of many sizes make many. Ours.
const PLANS: usize = 4096;

/// Whether the library can be opened here.
pub fn is_there() -> bool {
    // Safety: looks whether a library can be opened.
    unsafe { sys::is_culib_present() }
}

/// The library's version.
pub fn version() -> usize {
    // Safety: asks a library that is there for a number.
    unsafe { sys::cublasLtGetVersion() }
}

impl Products {
    /// In the current context.
    pub fn open() -> Result<Products> {
        Ok(Products {
            // Safety: memory that products write before they read it.
            workspace: unsafe { cu::malloc_sync(WORKSPACE) }.map_err(failed)?,
            handle: lt::create_handle()
                .map_err(|error| anyhow::anyhow!("{error}"))
                .context("CUDA's library of matrix products does not start")?,
            plans: Mutex::default(),
        })
    }

    /// # Safety
    /// As for [`super::Driver::multiply`], in the context of [`Products::open`].
    pub unsafe fn multiply(&self, product: &Product, stream: CUstream) -> Result<()> {
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
            alignments: addresses.map(alignment),
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
                    sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                    std::ptr::from_ref(&bias).cast(),
                    size_of::<u64>(),
                )
                .map_err(|error| anyhow::anyhow!("{error}"))?;
            }
            lt::matmul(
                self.handle,
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
                stream.cast(),
            )
            .map_err(|error| anyhow::anyhow!("{error}"))
            .with_context(|| format!("{product:?}"))
        }
    }

    /// The library's matrices have columns behind each other: its product is that of the transposes, in the other order.
    fn plan(&self, product: &Product) -> Result<Plan> {
        let failed = |error: lt::CublasError| anyhow::anyhow!("{error}");
        let kind = |element| match element {
            Element::F32 => sys::cudaDataType::CUDA_R_32F,
            Element::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        };
        let Product {
            rows,
            depth,
            columns,
            left,
            right,
            ..
        } = *product;
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        // Safety: handles that have just been made, and attributes with their own types.
        unsafe {
            let description = lt::create_matmul_desc(
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cudaDataType::CUDA_R_32F,
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
                let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
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
            let stored = |side: Side, rows: usize, columns: usize| {
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
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                std::ptr::from_ref(&workspace).cast(),
                size_of::<usize>(),
            )
            .map_err(failed)?;
            use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
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
                self.handle,
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

    /// Gives back what it holds; in the context of [`Products::open`].
    ///
    /// # Safety
    /// Nothing uses it any more.
    pub unsafe fn close(&self) {
        // Safety: made by `open` and `plan`.
        unsafe {
            for (_, plan) in lock(&self.plans).drain() {
                plan.destroy();
            }
            let _ = lt::destroy_handle(self.handle);
            let _ = cu::free_sync(self.workspace);
        }
    }
}

impl Plan {
    /// # Safety
    /// The plan is not used again.
    unsafe fn destroy(self) {
        // Safety: made by `Products::plan`.
        unsafe {
            let _ = lt::destroy_matmul_desc(self.description);
            for layout in self.layouts {
                let _ = lt::destroy_matrix_layout(layout);
            }
        }
    }
}

/// The largest power of two up to 16, the longest load, that divides an address.
fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(4)
}
