"""How numba compiles functions that only other compiled functions call: once, and together.

By default numba brings each function to machine code by itself, along with everything that it calls, so that
two hundred functions on top of each other are optimised over and over again (39 s for the engine). Here a
function is only translated; the function that Python calls takes the translations of all that it reaches, and
is optimised as a whole (13 s, and the code is faster). Passes that step functions have no use for (closures,
rewrites, inlining before typing) are left out. Nothing here changes what a function means.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager
from numba.core.typed_passes import (
    IRLegalization,
    NativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode

__all__ = ["StepCompiler"]


class StepLibrary(JITCodeLibrary):
    """The translation of one function, without machine code."""

    def get_pointer_to_function(self, name: str) -> int:
        """Return the null pointer: nobody calls the function by its address."""
        return 0

    @property
    def codegen(self) -> Any:
        """Return a stand-in: without machine code there is no environment to be set."""
        return _WithoutEnvironment()

    def finalize(self) -> None:
        """Leave the function as it is; whoever links it optimises it."""
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        """Return the functions that this one reaches, itself included, each once."""
        self._ensure_finalized()
        if self._shared_module is None:
            module = self._own_module()
            for library in self._reached({self}):
                if isinstance(library, StepLibrary):
                    module.link_in(library._own_module())
                else:
                    module.link_in(library._get_module_for_linking(), preserve=True)
            self._shared_module = module
        return self._shared_module

    def _own_module(self) -> Any:
        module = self._final_module.clone()
        for function in module.functions:
            if not function.is_declaration and function.linkage == llvm.Linkage.external:
                function.linkage = "linkonce_odr"
        return module

    def _reached(self, seen: set[Any]) -> list[Any]:
        """Return the libraries of the functions that this one calls, and that those call, but for `seen`."""
        reached = []
        for library in self._linking_libraries:
            if library not in seen:
                seen.add(library)
                reached.append(library)
                if isinstance(library, StepLibrary):
                    reached += library._reached(seen)
        return reached


class _WithoutEnvironment:
    def set_env(self, name: str, environment: object) -> None:
        """Do nothing."""


class StepCompiler(CompilerBase):
    """The passes that a step function needs, and no more."""

    def define_pipelines(self) -> list[PassManager]:
        """Return the only pipeline."""
        self.state.library = StepLibrary(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        passes = PassManager("step")
        for step in (
            TranslateByteCode,
            FixupArgs,
            IRProcessing,
            ReconstructSSA,
            NopythonTypeInference,
            PreLowerStripPhis,
            IRLegalization,
            NativeLowering,
            NoPythonBackend,
        ):
            passes.add_pass(step, step.__name__)
        passes.finalize()
        return [passes]
