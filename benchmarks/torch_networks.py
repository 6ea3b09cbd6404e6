"""Networks of sourcesep in PyTorch, to compare speeds with: [batch, 1, time] -> [batch, 4, time]."""

from __future__ import annotations

import torch
from torch import nn

TARGETS = 4


class WaveNetBlock(nn.Module):
    """A dilated convolution, and its residual and skip outputs."""

    def __init__(self, filters: int, dilation: int) -> None:
        super().__init__()
        self.dilated = nn.Conv1d(filters, filters, 3, padding=dilation, dilation=dilation)
        self.both = nn.Conv1d(filters, 2 * filters, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns (output, skip), each [batch, channel, time]."""
        residual, skip = self.both(self.dilated(x).relu()).relu().chunk(2, 1)
        return x + residual, skip


class WaveNet(nn.Module):
    """The published WaveNet."""

    def __init__(self, filters: int = 128) -> None:
        super().__init__()
        self.front = nn.Conv1d(1, filters, 3, padding=1)
        self.blocks = nn.ModuleList(WaveNetBlock(filters, 2**block) for _ in range(4) for block in range(10))
        head = (nn.Conv1d(filters, 512, 3, padding=1), nn.ReLU(), nn.Conv1d(512, 256, 3, padding=1), nn.ReLU())
        self.head = nn.Sequential(*head, nn.Conv1d(256, TARGETS, 1))

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        """Separates [batch, 1, time] into [batch, 4, time]."""
        x, summed = self.front(mixture).relu(), 0
        for block in self.blocks:
            x, skip = block(x)
            summed = summed + skip
        return self.head(summed)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of [batch, channel, time]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalises [batch, channel, time]."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class GatedBlock(nn.Module):
    """Normalisation, a gated dilated convolution, and its residual and skip outputs."""

    def __init__(self, filters: int, dilation: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(filters)
        self.dilated = nn.Conv1d(filters, 2 * filters, 3, padding=dilation, dilation=dilation)
        self.both = nn.Conv1d(filters, 2 * filters, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns (output, skip), each [batch, channel, time]."""
        values, gates = self.dilated(self.norm(x)).chunk(2, 1)
        residual, skip = self.both(values.tanh() * gates.sigmoid()).chunk(2, 1)
        return x + residual, skip


class TasNet(nn.Module):
    """The tasnet of sourcesep with 2 stacks of 8 blocks."""

    def __init__(self, filters: int = 128, encoder_filters: int = 256, stride: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, encoder_filters, 2 * stride, stride, padding=stride)
        self.norm, self.bottleneck = ChannelNorm(encoder_filters), nn.Conv1d(encoder_filters, filters, 1)
        self.blocks = nn.ModuleList(GatedBlock(filters, 2**block) for _ in range(2) for block in range(8))
        self.skips_norm = ChannelNorm(filters)
        self.masks = nn.Conv1d(filters, TARGETS * encoder_filters, 1)
        self.decoders = nn.ModuleList(
            nn.ConvTranspose1d(encoder_filters, 1, 2 * stride, stride, padding=stride, bias=False)
            for _ in range(TARGETS)
        )

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        """Separates [batch, 1, time] into [batch, 4, time]."""
        encoded = self.encoder(mixture).relu()
        x, summed = self.bottleneck(self.norm(encoded)), 0
        for block in self.blocks:
            x, skip = block(x)
            summed = summed + skip
        masks = self.masks(self.skips_norm(summed).relu()).sigmoid().chunk(TARGETS, 1)
        return torch.cat([decoder(encoded * mask) for decoder, mask in zip(self.decoders, masks)], 1)


NETWORKS = {"wavenet": WaveNet, "tasnet": TasNet}
