"""`bcistream devices`: what could be listened to, here and now."""

from __future__ import annotations

from typing import Any


def lsl_streams(wait_s: float) -> list[dict[str, Any]]:
    """Return every LSL stream that answers within ``wait_s`` seconds."""
    from streamer.lsl import load

    found = load().resolve_streams(wait_time=wait_s)
    rows = [
        {
            "name": s.name(),
            "type": s.type(),
            "n_chans": s.channel_count(),
            "sfreq": s.nominal_srate(),
            "source_id": s.source_id(),
            "host": s.hostname(),
        }
        for s in found
    ]
    return sorted(rows, key=lambda row: (row["type"], row["name"]))


def brainflow_boards() -> list[dict[str, Any]]:
    """Return every board that the installed BrainFlow knows, with its EEG or EMG channels and rate."""
    from streamer.sources._boards import load

    shim = load()
    rows = []
    for board in shim.BoardIds:
        if board.value < -1:  # none, playback and streaming: they are what their master board is
            continue
        described = shim.BoardShim.get_board_descr(board.value)
        rows.append(
            {
                "board": board.name,
                "id": board.value,
                "sfreq": described.get("sampling_rate"),
                "n_eeg": len(described.get("eeg_channels", [])),
                "n_emg": len(described.get("emg_channels", [])),
            }
        )
    return rows
