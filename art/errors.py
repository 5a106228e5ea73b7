"""Every exception that art raises on purpose.

All derive from :class:`ArtError`, and each is also the standard exception that a caller would
expect, so that ``except ValueError`` keeps working. All can be pickled: they cross processes. ::

    ArtError
      MissingExtraError (ImportError)
      ConfigurationError (ValueError)
        ChatTemplateError
        MissingAPIKeyError
      UnsupportedModelArchitectureError (ValueError)
      ModelSupportPluginError (RuntimeError)
      DependencyFloorError (RuntimeError)
      AdapterFormatError (ValueError)
      UnknownBaseModelError (ValueError)
      NotRegisteredError (ValueError)
      CaptureError (RuntimeError)
      TrainingDataError (ValueError)
        EmptyGroupError
        InvalidRewardError
        NoTrainableTokensError
        ContextLengthError
      NoTrajectoryError (RuntimeError)
      AnswerError (RuntimeError)
        JudgeError
      CheckpointError (OSError)
      ModelInUseError (RuntimeError)
      EngineError (RuntimeError)
        EngineStartError
        EngineDiedError (ConnectionError)
        EngineUnreachableError (ConnectionError)
        EngineBusyError
      PortInUseError (OSError)
      IncompatibleClientError (RuntimeError)
      InvalidRequestError (ValueError)
        InvalidBodyError
        RequestTooLargeError
      NotFoundError (LookupError)
      SessionEndedError (RuntimeError)
      AuthenticationError (PermissionError)
      ForeignOriginError (PermissionError)
      IncompatibleEngineError (RuntimeError)
      RequestCancelledError (RuntimeError)

To add one: derive it from the nearest error above and, where a caller would expect it, from a
standard exception; let its summary say what has gone wrong; raise it with the value, the rule and
the remedy, from its cause; and put it into the tree.
"""


class ArtError(Exception):
    """The root of every exception that art raises on purpose."""


class MissingExtraError(ArtError, ImportError):
    """A part of art was touched whose engine is not installed.

    Args:
        feature: What was touched, such as ``"art.tinker"``.
        module: The root package that is absent, such as ``"torch"``.
        extra: The extra of the distribution that brings it.
    """

    def __init__(self, feature: str, module: str, extra: str) -> None:
        self.feature, self.module, self.extra = feature, module, extra
        super().__init__(
            f"{feature} needs {module!r}, which is not installed. "
            f'Install it with: pip install "art-rl[{extra}]"'
        )
        self.name = module

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str, str]]:
        return type(self), (self.feature, self.module, self.extra)


class ConfigurationError(ArtError, ValueError):
    """An argument, option or environment variable has a value that cannot be used."""


class ChatTemplateError(ConfigurationError):
    """A chat template cannot render a conversation."""


class MissingAPIKeyError(ConfigurationError):
    """There is neither an API key for a Tinker server nor an engine on this machine."""


class UnsupportedModelArchitectureError(ArtError, ValueError):
    """A model has no entry in the Megatron model-support registry."""


class ModelSupportPluginError(ArtError, RuntimeError):
    """A model family of another distribution cannot be loaded, or claims what is taken."""


class ModelSupportPluginWarning(UserWarning):
    """A model family of another distribution was left out. All others are there."""


class DependencyFloorError(ArtError, RuntimeError):
    """A model family needs a newer version of something than the one that is installed."""


class AdapterFormatError(ArtError, ValueError):
    """LoRA tensors have names, ranks or shapes that their format does not allow."""


class UnknownBaseModelError(ArtError, ValueError):
    """The server does not have, or cannot find, the base model that was asked for."""


class NotRegisteredError(ArtError, ValueError):
    """A model was used before ``await model.register(backend)``."""


class CaptureError(ArtError, RuntimeError):
    """A trajectory was asked for where none is captured, or no longer."""


class TrainingDataError(ArtError, ValueError):
    """Trajectories cannot become training data. Nothing was sent and nothing has changed."""


class EmptyGroupError(TrainingDataError):
    """A trajectory group has no trajectories."""


class InvalidRewardError(TrainingDataError):
    """A reward is NaN or infinite."""


class NoTrainableTokensError(TrainingDataError):
    """A trajectory has no completion with token ids and logprobs to train on."""


class ContextLengthError(TrainingDataError):
    """A sequence is longer than the model's context."""


class NoTrajectoryError(ArtError, RuntimeError):
    """Code that was to yield a trajectory ended without one."""


class AnswerError(ArtError, RuntimeError):
    """A model that was asked for data gave no answer, or none that can be used."""


class JudgeError(AnswerError):
    """A judge gave no scores, or none that can be used."""


class CheckpointError(ArtError, OSError):
    """A checkpoint cannot be written, read or found. Earlier checkpoints are intact."""


class ModelInUseError(ArtError, RuntimeError):
    """Another backend, in this process or another, trains the model. Nothing has changed."""


class EngineError(ArtError, RuntimeError):
    """The training engine answered with an error."""


class EngineStartError(EngineError):
    """The embedded engine could not start."""


class EngineDiedError(EngineError, ConnectionError):
    """The embedded engine's process ended while it was in use. Saved checkpoints are intact."""


class EngineUnreachableError(EngineError, ConnectionError):
    """The Tinker server cannot be reached, or gives no answer of any kind."""


class PortInUseError(ArtError, OSError):
    """The port that a server was asked to listen on is taken."""


class IncompatibleClientError(ArtError, RuntimeError):
    """The SDK's version is outside the range that this server speaks."""


class InvalidRequestError(ArtError, ValueError):
    """A request to the engine is malformed, or asks for what the engine does not have."""


class InvalidBodyError(InvalidRequestError):
    """The body of a request to the engine is no JSON, or not what its endpoint takes."""


class RequestTooLargeError(InvalidRequestError):
    """The body of a request to the engine is over the limit."""


class NotFoundError(ArtError, LookupError):
    """The engine has no session, model, sampler, future or checkpoint of that name."""


class SessionEndedError(ArtError, RuntimeError):
    """The session was finished, or its client stopped sending heartbeats."""


class AuthenticationError(ArtError, PermissionError):
    """The API key is missing or wrong."""


class ForeignOriginError(ArtError, PermissionError):
    """A request came from a web page of another site, or under a name that is not the server's."""


class EngineBusyError(EngineError):
    """The engine's queue is full; the request can be sent again later."""


class IncompatibleEngineError(ArtError, RuntimeError):
    """megatron-core is not as art expects it where art adapts it."""


class RequestCancelledError(ArtError, RuntimeError):
    """The client cancelled the request, or ended its session."""
