"""One epoch of training steps: the seed, the learning rate and the look at the loss that both engines share."""

from collections.abc import Iterator
from itertools import islice

from torch.utils.data import DataLoader

from util import distributed
from util.augment import normalize
from util.errors import NonFiniteLoss
from util.log import Averages, RunLog
from util.optimisation import Stepper
from util.progress import track
from util.seeds import seed_everything


def training_steps(
    loader: DataLoader, stepper: Stepper, averages: Averages, log: RunLog, args, epoch: int
) -> Iterator[tuple[dict, bool]]:
    """Yield each batch of an epoch on the device, its images normalised, and whether it ends an accumulation window.

    Before a batch: the step's seed, and the learning rate at the start of a window. After every ``--print_freq`` batches:
    the mean loss to TensorBoard, and a :class:`NonFiniteLoss` if it is not finite; only then is the device waited for.
    """
    loader.dataset.set_epoch(epoch)
    loader.sampler.set_epoch(epoch)
    batches = stepper.steps_per_epoch(len(loader))
    device = stepper.precision.device
    shown = track(islice(loader, batches), f"epoch {epoch}", total=batches, scale=args.batch_size)
    for step, batch in enumerate(shown):
        seed_everything(args.seed, "step", epoch, step, distributed.rank())
        if step % args.accum_iter == 0:
            lr = stepper.set_learning_rate(epoch + step / batches)
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        batch["image"] = normalize(batch["image"])
        yield batch, (step + 1) % args.accum_iter == 0
        if (step + 1) % args.print_freq == 0 or step + 1 == batches:
            if not averages.finite():
                raise NonFiniteLoss(
                    f"the loss is not finite in epoch {epoch}, step {step} or up to {args.print_freq} before; the last "
                    "checkpoint is intact: lower --blr, set --clip_grad 1, or use --amp fp32"
                )
            means = averages.means()
            log.scalars({f"step/{name}": value for name, value in {**means, "lr": lr}.items()}, epoch * batches + step)
