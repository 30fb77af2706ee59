"""Classes of unequal size: weights of the loss against slow sums, and draws that are the same however they are made."""

import pytest
import torch
import torch.nn.functional as F
from timm.data import Mixup

from util.data.loading import EpochSampler, SeededDataset, training_loader
from util.training.balance import Balance, class_weights, cross_entropy

LABELS = torch.tensor([0] * 12 + [1] * 3 + [2] * 1)
CPU = torch.device("cpu")


def test_weights_are_inverse_to_the_classes_and_one_on_average():
    weights = class_weights(LABELS, 3)
    torch.testing.assert_close(weights[LABELS].mean(), torch.tensor(1.0))
    torch.testing.assert_close(weights * torch.tensor([12, 3, 1]), torch.full((3,), 16 / 3))
    assert class_weights(LABELS, 4)[3] == 0 and torch.equal(class_weights(LABELS, 4)[:3], weights)


def test_without_weights_it_is_pytorchs():
    logits, labels = torch.randn(8, 3), torch.randint(3, (8,))
    assert torch.equal(cross_entropy(logits, labels, 0.1), F.cross_entropy(logits, labels, label_smoothing=0.1))


def slow(logits, labels, smoothing, weights):
    """Each image's own smoothed loss, times the weight of its class."""
    losses = [F.cross_entropy(one, label, label_smoothing=smoothing) for one, label in zip(logits, labels, strict=True)]
    return torch.stack([weights[label] * loss for label, loss in zip(labels, losses, strict=True)]).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_image_counts_as_much_as_its_class(smoothing):
    logits, labels, weights = torch.randn(16, 3), LABELS, class_weights(LABELS, 3)
    torch.testing.assert_close(cross_entropy(logits, labels, smoothing, weights), slow(logits, labels, smoothing, weights))
    if not smoothing:  # over the whole set it is PyTorch's weighted mean, where every batch has its share of the classes
        torch.testing.assert_close(cross_entropy(logits, labels, 0, weights), F.cross_entropy(logits, labels, weights))
    halves = [cross_entropy(logits[part], labels[part], smoothing, weights) for part in (slice(8), slice(8, 16))]
    torch.testing.assert_close(torch.stack(halves).mean(), cross_entropy(logits, labels, smoothing, weights))


def test_labels_of_a_mixed_image_count_by_their_own_classes():
    logits, weights = torch.randn(8, 3), class_weights(LABELS, 3)
    labels = torch.tensor([0, 1, 2, 0, 0, 0, 1, 2])
    mixed = Mixup(0.8, label_smoothing=0.0, num_classes=3)(torch.randn(8, 3, 4, 4), labels)[1]
    share = mixed.gather(1, labels[:, None])[0].item()  # 1 where both labels are alike
    assert 0 < share < 1
    expected = share * slow(logits, labels, 0.1, weights) + (1 - share) * slow(logits, labels.flip(0), 0.1, weights)
    torch.testing.assert_close(cross_entropy(logits, mixed, 0.1, weights), expected)


def test_images_left_out_of_the_class_loss_do_not_count():
    logits, labels, weights = torch.randn(8, 3), torch.tensor([0, 1, 2, -100, 0, -100, 1, 2]), class_weights(LABELS, 3)
    kept = labels >= 0
    torch.testing.assert_close(
        cross_entropy(logits, labels, weights=weights), slow(logits[kept], labels[kept], 0.0, weights)
    )


class Numbers(SeededDataset):
    """What the augmentation draws for each image."""

    def __init__(self):
        super().__init__([str(index) for index in range(len(LABELS))], seed=3)

    def draw(self, index):
        return {"label": LABELS[index], "crop": torch.rand(())}


def batches(epoch, workers=0, skip=0):
    dataset, balance = Numbers(), Balance("sampler", LABELS, ["a", "b", "c"], CPU)
    loader = training_loader(dataset, 2, workers, False, balance.chances)
    dataset.set_epoch(epoch)
    loader.sampler.set_epoch(epoch)
    loader.sampler.skip = skip
    return [tuple(batch[name].tolist() for name in ("index", "label", "crop")) for batch in loader], balance.summary(loader)


def test_all_classes_are_drawn_alike_and_each_time_augmented_anew():
    drawn = torch.zeros(3)
    for epoch in range(200):
        sampler = EpochSampler(Numbers(), 1, 0, seed=3, chances=class_weights(LABELS, 3)[LABELS])
        sampler.set_epoch(epoch)
        drawn += torch.bincount(LABELS[sampler.drawn()], minlength=3)
    assert (drawn / drawn.sum() - 1 / 3).abs().max() < 0.03
    found, summary = batches(0)
    rare = [crop for batch in found for label, crop in zip(batch[1], batch[2], strict=True) if label == 2]
    assert len(rare) > 2 and len(set(rare)) == len(rare)  # of the only image of its class
    labels = torch.tensor([label for batch in found for label in batch[1]])
    assert summary == {"drawn": dict(zip("abc", torch.bincount(labels, minlength=3).tolist(), strict=True))}


def test_draws_are_the_same_for_any_workers_stops_and_processes(monkeypatch):
    whole, _ = batches(5)
    assert batches(5, workers=2)[0] == whole and batches(5, skip=6)[0] == whole[3:] and batches(6)[0] != whole
    own = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        own.append([row for batch in batches(5)[0] for row in zip(*batch, strict=True)])
    together = [row for rows in zip(*own, strict=True) for row in rows]
    assert together == [row for batch in whole for row in zip(*batch, strict=True)]


def test_weights_are_told(capsys):
    for kind, words in (("loss", "balance: in the loss, an image counts 5.33 times (c) to 0.444 times (a) as much"),
                        ("sampler", "an image comes 5.33 times (c) to 0.444 times (a) as often"), ("none", "")):  # fmt: skip
        balance = Balance(kind, LABELS, ["a", "b", "c"], CPU)
        assert words in (out := capsys.readouterr().out) and bool(out) == bool(words)
        assert (balance.loss_weights is not None, balance.chances is not None) == (kind == "loss", kind == "sampler")
