"""What can be hooked into a training run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from spiral.train.evaluate import Evaluation
    from spiral.train.trainer import StepRecord, Trainer


class Callback:
    """Called by the trainer; override what you need. An exception ends the run; `Trainer.stop` ends it well.

    Attributes:
        shows_progress: Whether it shows the run in the terminal; the command's own progress then stays away.
    """

    shows_progress: ClassVar[bool] = False

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step of this process."""

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        """After every step."""

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        """After an evaluation."""

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        """After a checkpoint was written."""

    def on_end(self, trainer: Trainer) -> None:
        """After the last step; not after an error or an interrupt."""

    def on_close(self, trainer: Trainer) -> None:
        """When the run is over, however it ended: give back files, sockets, threads, the terminal.

        Called once for every `on_start`, also when that raised; the last callback first.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know again, as JSON can hold it; saved under the class's name.

        Of several callbacks whose classes have one name, the second is ``Name#2``, and so on in their order.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def result_weights(self, trainer: Trainer) -> Path | None:
        """The file of weights that are the run's result, as `Trainer.save_weights` writes it; None: the last ones.

        Asked once, by `Trainer.finish`; the first callback that names a file decides.
        """
        return None
