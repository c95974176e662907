"""The table of types that a caller may send, and the form of each on the wire.

syft knows some 450 types, and builds any of them for any caller who names one. Among them are connections,
services, stores and types that call a function. This table has only the types that syft's client sends. A
type that a later syft adds is refused until a developer adds it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Form(Enum):
    """The content of a value's blob."""

    FIELDS = "fields"
    """No blob: the value has fields."""
    SEQUENCE = "sequence"
    """A list of values."""
    PAIRS = "pairs"
    """A list of keys and values."""
    VALUE = "value"
    """One value, from which syft builds this value."""
    LEAF = "leaf"
    """Plain bytes."""
    TYPE = "type"
    """The name of a type."""
    ALIAS = "alias"
    """A dict that names a type and its arguments, such as `list[int]`."""


_PLAIN: Mapping[Form, tuple[str, ...]] = {
    Form.LEAF: (
        *("NoneType", "bool", "bytes", "float", "int", "str", "nacl_verify_key", "pydantic_emailstr"),
        *("Any", "Any_typing._AnyMeta", "Any_typing._SpecialForm", "TypeVar", "Union"),
        *("numpy_bool", "numpy_double", "numpy_float16", "numpy_float32", "numpy_float64", "numpy_int16"),
        *("numpy_int32", "numpy_int64", "numpy_int8", "numpy_number", "numpy_single", "numpy_uint16"),
        *("numpy_uint32", "numpy_uint64", "numpy_uint8", "pandas_dataframe"),
    ),
    Form.SEQUENCE: ("complex", "frozenset", "list", "range", "set", "slice", "tuple"),
    Form.PAIRS: ("OrderedDict", "dict", "dicttuple"),
    Form.VALUE: (
        *("UnionType", "bytes_io", "datetime_date", "datetime_datetime", "datetime_time"),
        *("inspect_Signature", "numpy_ndarray", "pandas_series", "pandas_timestamp"),
    ),
    Form.TYPE: (
        *("ABCMeta", "EnumMeta", "EnumMeta_enum.EnumMeta", "EnumMeta_enum.EnumType", "GenericAlias"),
        *("_SpecialForm", "_SpecialGenericAlias", "empty_type", "dicttuple_meta", "inspect_empty"),
        *("partial_model_metaclass", "pydantic_model_metaclass", "type"),
    ),
    Form.ALIAS: ("_GenericAlias", "_UnionGenericAlias"),
}

OBJECTS_OF_SYFT: frozenset[str] = frozenset(
    {
        *{"UID", "LineageID", "Empty", "BlobFileType", "ActionObjectPermission", "StoragePermission"},
        *{"DemocraticConsensusModel", "JobStatus", "JobType", "Status", "ActionType", "ActionPermission"},
        *{"EMAIL_TYPES", "NOTIFICATION_FREQUENCY", "NOTIFIERS", "NotificationRequestStatus"},
        *{"NotificationStatus", "RequestStatus", "ServerPeerAssociationStatus", "ServerPeerConnectionStatus"},
        *{"ServerSideType", "ServerType", "ServiceRole", "TwinMode", "UserCodeStatus", "DeploymentType"},
        *{"OnboardEmailTemplate", "RequestEmailTemplate", "RequestUpdateEmailTemplate"},
        *{"inspect_Parameter", "inspect_ParameterKind", "numpy_no_value", "numpy_ufunc_unspecified"},
        *{"CMPCRUDPermission", "CMPPermission", "TypeError", "ServerURL"},
    }
)
"""Types that syft builds field by field, without a model or an enumeration. They have no side effects."""

OF_THE_NODE: frozenset[str] = frozenset({"QueueConfig", "QueueClientConfig", "ZMQQueueConfig"})
"""Types that a node sends to its own workers, built in the same way. Callers may not send them."""

OBJECTS: frozenset[tuple[str, int]] = frozenset(
    {
        *((name, 1) for name in OBJECTS_OF_SYFT),
        # Parts of every message.
        *{("SyftAPICall", 1), ("SyftVerifyKey", 1), ("DateTime", 1), ("MarkdownDescription", 1)},
        # Data and its metadata.
        *{("ActionDataEmpty", 1), ("ActionObject", 1), ("AnyActionObject", 1)},
        *{("NumpyArrayObject", 1), ("NumpyBoolObject", 1), ("NumpyScalarObject", 1)},
        *{("PandasDataframeObject", 1), ("PandasSeriesObject", 1), ("ObjectNotReady", 1), ("TwinObject", 1)},
        *{("Asset", 1), ("Contributor", 1), ("CreateAsset", 1), ("CreateDataset", 1)},
        *{("DataSubjectCreate", 1), ("DataSubjectMemberRelationship", 1), ("CreateBlobStorageEntry", 1)},
        # Code and its policies.
        *{("SubmitUserCode", 1), ("UserCodeExecutionResult", 1), ("ServerIdentity", 1), ("UserIdentity", 1)},
        *{("CreatePolicyRule", 1), ("CreatePolicyRuleConstant", 1), ("EmptyInputPolicy", 1)},
        *{("ExactMatch", 1), ("Matches", 1), ("MixedInputPolicy", 1), ("PolicyRule", 1), ("PreFill", 1)},
        *{("OutputPolicyExecuteCount", 1), ("OutputPolicyExecuteOnce", 1), ("UserOwned", 1)},
        *{("JobItem", 2), ("SyftLog", 1)},
        # Requests and projects. The server itself creates a request for code from the code, and also a link
        # to another object: approved code would follow a caller's link to any object.
        *{("ActionStoreChange", 1), ("LinkedObject", 1), ("RequestInfoFilter", 1), ("SubmitRequest", 1)},
        *{("ApprovalDecision", 1), ("SyftSuccess", 1), ("SyftError", 1)},
        *{("ProjectMessage", 1), ("ProjectRequest", 1), ("ProjectRequestResponse", 1), ("ProjectSubmit", 1)},
        *{("ProjectThreadMessage", 1), ("CreateNotification", 1), ("ReplyNotification", 1)},
        # Accounts and settings.
        *{("NotificationPreferences", 1), ("ServerSettingsUpdate", 4), ("UserCreate", 1), ("UserSearch", 1)},
        ("UserUpdate", 1),
        # An administrator's own endpoints.
        *{("CreateTwinAPIEndpoint", 2), ("PrivateAPIEndpoint", 1), ("PublicAPIEndpoint", 1)},
        ("UpdateTwinAPIEndpoint", 1),
        # Other nodes.
        *{("HTTPServerRoute", 1), ("ServerPeer", 1), ("ServerPeerUpdate", 1)},
    }
)

BY_NAME: frozenset[tuple[str, int]] = frozenset(
    {
        *{("Request", 1), ("RequestService", 1), ("UserCode", 2), ("UserCodeService", 1), ("Project", 1)},
        *{("CustomEndpointActionObject", 2), ("ExecutionOutput", 1), ("QueueItem", 2)},
        *{("Dataset", 1), ("Notification", 2), ("UserView", 1), ("UserCodeStatusCollection", 2)},
        *{("DatasetService", 1), ("JobService", 1), ("NetworkService", 1), ("OutputService", 1)},
        *{("SyftWorker", 2), ("WorkerService", 1), ("SyftWorkerImage", 2), ("SyftWorkerImageService", 1)},
        *{("ProjectService", 1), ("UserCodeStatusService", 1), ("UserService", 1), ("ActionService", 1)},
    }
)
"""Types that callers may name. Callers may not send values of these types."""

FORMS: Mapping[tuple[str, int], Form] = {
    **{(name, 1): form for form, names in _PLAIN.items() for name in names},
    **dict.fromkeys(OBJECTS, Form.FIELDS),
}

OF_A_SIGN_UP: frozenset[str] = frozenset(
    {"UserCreate", "UID", "ServiceRole", "str", "pydantic_emailstr", "NoneType", "bool", "int", "bytes"}
)
"""Types in the `UserCreate` of a new account. Its id is bytes, and its role is a number."""

NAMES: frozenset[tuple[str, int]] = frozenset(FORMS) | BY_NAME

_TYPING = (
    *("AsyncIterator", "Awaitable", "Callable", "DefaultDict", "Deque", "Dict", "FrozenSet", "Generator"),
    *("Iterable", "Iterator", "List", "Literal", "Mapping", "MutableMapping", "Optional", "OrderedDict"),
    *("Sequence", "Set", "Tuple", "Type", "Union"),
)
ALIASES: frozenset[str] = frozenset(f"typing.{name}" for name in _TYPING)
"""Types that a generic alias may use. Each of them only stores its arguments."""
