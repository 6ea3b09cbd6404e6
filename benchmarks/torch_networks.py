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


class BandBlock(nn.Module):
    """Normalisation, a dilated convolution over time that all bands share, and a mixture of all bands.

    [band, batch, frame, filter] -> the same shape.
    """

    def __init__(self, n_bands: int, filters: int, mix_filters: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(filters, elementwise_affine=False)
        self.dilated = nn.Conv1d(filters, filters, 3, padding=dilation, dilation=dilation)
        self.narrow = nn.Linear(filters, mix_filters)
        self.mix = nn.Linear(n_bands * mix_filters, n_bands * mix_filters)
        self.out = nn.Linear(filters + mix_filters, filters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the block."""
        n_bands, batch, n_frames, _ = x.shape
        hidden = self.dilated(self.norm(x).flatten(0, 1).transpose(1, 2)).relu()
        hidden = hidden.transpose(1, 2).reshape(n_bands, batch, n_frames, -1)
        mixed = self.mix(self.narrow(hidden).permute(1, 2, 0, 3).flatten(2)).relu()
        mixed = mixed.reshape(batch, n_frames, n_bands, -1).permute(2, 0, 1, 3)
        return x + self.out(torch.cat([hidden, mixed], -1))


class BandNet(nn.Module):
    """The network of --model=bandnet --sample_rate=16000, for one channel."""

    LENGTH, HOP, LEVEL_FRAMES = 2_048, 512, 33
    BANDS = ((16, 8), (8, 16), (8, 32), (8, 64))  # (number of bands, frequencies in each)

    def __init__(self, filters: int = 64, mix_filters: int = 16, n_blocks: int = 6) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(self.LENGTH))
        n_bands = sum(n for n, _ in self.BANDS)
        split = [0.1 * torch.randn(n, 3 * bins, filters) for n, bins in self.BANDS]
        join = [0.03 * torch.randn(n, filters, TARGETS * bins) for n, bins in self.BANDS]
        self.split = nn.ParameterList(split)
        self.split_bias = nn.Parameter(0.3 * torch.randn(n_bands, 1, filters))
        self.blocks = nn.ModuleList(BandBlock(n_bands, filters, mix_filters, 2**block) for block in range(n_blocks))
        self.last_norm, self.last = nn.LayerNorm(filters, elementwise_affine=False), nn.Linear(filters, filters)
        self.join = nn.ParameterList(join)
        self.join_bias = nn.ParameterList(torch.zeros(n, 1, TARGETS * bins) for n, bins in self.BANDS)

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        """Separates [batch, 1, time] into [batch, 4, time]."""
        batch, _, time = mixture.shape
        spectrum = torch.stft(mixture[:, 0], self.LENGTH, self.HOP, window=self.window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        level = nn.functional.avg_pool1d(power.mean(1, keepdim=True), self.LEVEL_FRAMES, 1, self.LEVEL_FRAMES // 2)
        log_power = (power / (level + 1e-10) + 1e-4).log()
        scale = (-0.35 * log_power).exp() * (level + 1e-10).rsqrt()
        features = torch.stack([scale * spectrum.real, scale * spectrum.imag, 0.25 * log_power], 1)
        n_frames = features.shape[-1]
        begin, vectors = 0, []
        for (n, bins), kernel in zip(self.BANDS, self.split):
            part = features[:, :, begin : begin + n * bins].reshape(batch, 3, n, bins, n_frames)
            vectors.append(part.permute(2, 0, 4, 1, 3).reshape(n, batch * n_frames, 3 * bins) @ kernel)
            begin += n * bins
        x = (torch.cat(vectors) + self.split_bias).reshape(-1, batch, n_frames, self.split_bias.shape[-1])
        for block in self.blocks:
            x = block(x)
        x = self.last(self.last_norm(x)).relu().flatten(1, 2)
        masks = []
        groups = x.split([n for n, _ in self.BANDS])
        for (n, bins), kernel, bias, group in zip(self.BANDS, self.join, self.join_bias, groups):
            y = (group @ kernel + bias).reshape(n, batch, n_frames, TARGETS, bins)
            masks.append(y.permute(1, 3, 0, 4, 2).reshape(batch, TARGETS, n * bins, n_frames))
        masks = nn.functional.pad(torch.cat(masks, 2), (0, 0, 0, 1)).softmax(1)[:, :-1]
        masked = (masks * spectrum[:, None]).flatten(0, 1)
        stems = torch.istft(masked, self.LENGTH, self.HOP, window=self.window, length=time)
        stems = stems.reshape(batch, TARGETS - 1, time)
        return torch.cat([stems, mixture - stems.sum(1, keepdim=True)], 1)


NETWORKS = {"wavenet": WaveNet, "tasnet": TasNet, "bandnet": BandNet}
