"""Spoken words by espeak-ng, through the library that the `espeakng-loader` package ships; absent without it."""

import ctypes
import importlib.util
import io
import wave

VOICES = ("en-us", "en-gb", "en-gb-scotland")
_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: samples come by callback; RETRIEVAL (1) is ten times slower
_UTF8 = 1
_PITCH, _RATE = 3, 1  # espeak_PARAMETER


def available() -> bool:
    """Whether espeak-ng can be loaded."""
    return importlib.util.find_spec("espeakng_loader") is not None


class Speaker:
    """Text → wav bytes, one voice at a time. The library keeps global state: one Speaker a process."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        path = str(espeakng_loader.get_data_path()).encode()
        self.rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, path, 0)
        if self.rate <= 0:
            raise OSError("espeak-ng did not start")
        self._chunks: list[bytes] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._take)  # kept: the library holds a pointer to it
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples, count: int, _events) -> int:
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    def say(self, text: str, voice: str, pitch: int, rate: int) -> bytes:
        """Mono 16-bit wav. pitch 0–99, rate in words a minute."""
        self._chunks.clear()
        self._library.espeak_SetVoiceByName(voice.encode())
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        self._library.espeak_SetParameter(_RATE, rate, 0)
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.rate)
            file.writeframes(b"".join(self._chunks))
        return out.getvalue()
