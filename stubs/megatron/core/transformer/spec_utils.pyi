class ModuleSpec:
    submodules: object

    def __init__(
        self,
        module: tuple[str, str] | type,
        params: dict[str, object] = ...,
        submodules: object = None,
        metainfo: dict[str, object] = ...,
    ) -> None: ...
