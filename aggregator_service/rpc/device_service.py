"""flasc.v1.DeviceService over grpc.aio, with handlers that take and give bytes.

gRPC's own deserializers would turn malformed input into INTERNAL, which clients retry for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import grpc

from aggregator_service.app.check_in import CheckIn
from aggregator_service.app.read_download import ReadDownload
from aggregator_service.app.report_outcome import ReportOutcome
from aggregator_service.app.submit_update import Receipt, SubmitUpdate
from aggregator_service.rpc.calls import Call, Calls, Context
from aggregator_service.rpc.messages import (
    encode_check_in,
    encode_receipt,
    encode_retry_window,
    parse,
    read_detail,
    read_evaluation,
    read_header,
    read_outcome,
    read_query,
    read_uuid,
)
from aggregator_service.rpc.upload_stream import UploadStreams
from aggregator_service.telemetry import PAYLOAD_BYTES, UPDATES_ACCEPTED
from flasc_core.pb.v1 import device_service_pb2 as pb

__all__ = ["SERVICE_NAME", "DeviceService"]

SERVICE_NAME: Final = pb.DESCRIPTOR.services_by_name["DeviceService"].full_name
# Messages of this size are the fastest for Python's gRPC; see docs/decisions.
DOWNLOAD_CHUNK_BYTES: Final = 512 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceService:
    calls: Calls
    check_in: CheckIn
    read_download: ReadDownload
    submit_update: SubmitUpdate
    report_outcome: ReportOutcome
    uploads: UploadStreams
    transfer_seconds: float

    def handlers(self) -> grpc.GenericRpcHandler:
        unary = grpc.unary_unary_rpc_method_handler
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "CheckIn": unary(self._check_in),
            "DownloadAdapter": grpc.unary_stream_rpc_method_handler(self._download_adapter),
            "SubmitUpdate": unary(self._submit_update),
            "StreamUpdate": grpc.stream_unary_rpc_method_handler(self._stream_update),
            "ReportOutcome": unary(self._report_outcome),
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, methods)

    async def _check_in(self, data: bytes, context: Context) -> bytes:
        async with self.calls.guard("CheckIn", context) as call:
            request = parse(pb.CheckInRequest, data)
            result = await self.calls.work(self.check_in, call.caller, read_query(request))
            call.facts["result"] = type(result).__name__
            return encode_check_in(result, request.known_task_sha256).SerializeToString()

    async def _download_adapter(self, data: bytes, context: Context) -> None:
        async with self.calls.guard("DownloadAdapter", context) as call:
            request = parse(pb.DownloadAdapterRequest, data)
            assignment_id = read_uuid(request.assignment_id, "assignment_id")
            work = self.calls.work
            download = await work(self.read_download, call.caller, assignment_id, request.offset)
            offset = request.offset
            try:
                async with asyncio.timeout(self.transfer_seconds):
                    while offset < download.size_bytes:
                        chunk = await work(
                            self.read_download.chunk, download, offset, DOWNLOAD_CHUNK_BYTES
                        )
                        if not chunk:
                            raise AssertionError(f"blob {download.key} has lost bytes")
                        message = pb.DownloadAdapterResponse(offset=offset, data=chunk)
                        await context.write(message.SerializeToString())
                        offset += len(chunk)
            finally:
                sent = offset - request.offset
                call.facts["payload_bytes_down"] = sent
                PAYLOAD_BYTES.labels(direction="down").inc(sent)
                self.calls.later(self.read_download.charge, assignment_id, sent)

    async def _submit_update(self, data: bytes, context: Context) -> bytes:
        async with self.calls.guard("SubmitUpdate", context) as call:
            request = parse(pb.SubmitUpdateRequest, data)
            receipt = await self._submit(call, request.header, request.payload)
            return pb.SubmitUpdateResponse(
                receipt=encode_receipt(receipt), retry_window=encode_retry_window(receipt.policy)
            ).SerializeToString()

    async def _stream_update(self, parts: AsyncIterator[bytes], context: Context) -> bytes:
        async with self.calls.guard("StreamUpdate", context) as call:
            header = await self.uploads.read_header(parts)
            size = await self.calls.work(
                self.submit_update.check_header, call.caller, read_header(header)
            )
            async with self.uploads.payload(parts, size) as payload:
                receipt = await self._submit(call, header, payload)
            return pb.StreamUpdateResponse(
                receipt=encode_receipt(receipt), retry_window=encode_retry_window(receipt.policy)
            ).SerializeToString()

    async def _report_outcome(self, data: bytes, context: Context) -> bytes:
        async with self.calls.guard("ReportOutcome", context) as call:
            request = parse(pb.ReportOutcomeRequest, data)
            policy = await self.calls.work(
                self.report_outcome,
                call.caller,
                read_uuid(request.assignment_id, "assignment_id"),
                read_outcome(request),
                detail=read_detail(request),
                evaluation=read_evaluation(request),
            )
            return pb.ReportOutcomeResponse(
                retry_window=encode_retry_window(policy)
            ).SerializeToString()

    async def _submit(self, call: Call, message: pb.UpdateHeader, payload: bytes) -> Receipt:
        call.facts["payload_bytes_up"] = len(payload)
        PAYLOAD_BYTES.labels(direction="up").inc(len(payload))
        header = read_header(message)
        receipt = await self.calls.work(self.submit_update, call.caller, header, payload)
        if not receipt.duplicate:
            UPDATES_ACCEPTED.inc()
        call.facts["duplicate"] = receipt.duplicate
        return receipt
