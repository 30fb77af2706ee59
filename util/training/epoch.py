"""One epoch of training steps: the seed, the learning rate and the look at the loss that both engines share."""

from collections.abc import Iterator
from itertools import islice

from util.data.augment import normalize
from util.system import distributed, interruption
from util.system.console import track
from util.system.errors import NonFiniteLoss
from util.system.seeds import seed_everything
from util.training.log import Averages
from util.training.run import Run


def training_steps(run: Run, averages: Averages, epoch: int) -> Iterator[tuple[dict, bool]]:
    """Yield each batch of an epoch on the device, its images normalised, and whether it ends an accumulation window.

    Before a batch: the step's seed, and the learning rate at the start of a window. After every ``--print_freq`` batches:
    the mean loss to TensorBoard, and a :class:`NonFiniteLoss` if one was not finite; only then is the device waited for.
    An epoch that was stopped within goes on after its last step.

    Args:
        averages: gets what the caller measures at each step; first of all what an interrupted epoch had measured.
    """
    args, stepper, loader = run.args, run.stepper, run.loader
    batches = stepper.steps_per_epoch(len(loader))
    done = run.continue_epoch(epoch, averages)
    loader.dataset.set_epoch(epoch)
    loader.sampler.set_epoch(epoch)
    loader.sampler.skip = done * args.batch_size
    shown = track(islice(loader, batches - done), f"epoch {epoch}", total=batches - done, scale=args.batch_size)
    unchecked = []  # the images of the batches whose loss was not looked at yet
    for step, batch in enumerate(shown, done):
        seed_everything(args.seed, "step", epoch, step, distributed.rank())
        if step % args.accum_iter == 0:
            lr = stepper.set_learning_rate(epoch + step / batches)
        unchecked.append(batch["index"])
        batch = {name: value.to(stepper.precision.device, non_blocking=True) for name, value in batch.items()}
        batch["image"] = normalize(batch["image"])
        last_of_window = (step + 1) % args.accum_iter == 0
        yield batch, last_of_window
        look = (step + 1) % args.print_freq == 0 or step + 1 == batches
        save = last_of_window and run.save_due(epoch, step + 1)
        stop = distributed.anyone(interruption.asked(), together=look) if last_of_window else 0
        if look or save or stop:
            bad = averages.first_not_finite()
            if bad is not None:
                raise NonFiniteLoss(run.report_bad_batch(epoch, step + 1 - len(unchecked) + bad, unchecked[bad].tolist()))
            unchecked.clear()
        if look:
            values = {**averages.means(), "lr": lr, **stepper.scaling()}
            run.log.scalars({f"step/{name}": value for name, value in values.items()}, epoch * batches + step)
        if last_of_window:
            run.after_step(epoch, step + 1, averages, save, stop)
