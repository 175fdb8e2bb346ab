"""flasc.v1.DeviceService over grpc.aio, with handlers that take and give bytes.

gRPC's own deserializers would turn malformed input into INTERNAL, which clients retry for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

import grpc

from aggregator_service.app.check_in import CheckIn
from aggregator_service.app.read_download import ReadDownload
from aggregator_service.app.receive_upload import ReceiveUpload
from aggregator_service.app.report_outcome import ReportOutcome
from aggregator_service.app.submit_update import SubmitUpdate
from aggregator_service.app.upload_rules import Receipt
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
    read_upload_query,
    read_uuid,
)
from aggregator_service.rpc.upload_stream import UploadStream, UploadStreams
from aggregator_service.telemetry import PAYLOAD_BYTES, UPDATES_ACCEPTED
from flasc_core.errors import Reason, Refusal
from flasc_core.metadata import UPLOAD_OPEN
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
    receive_upload: ReceiveUpload
    report_outcome: ReportOutcome
    uploads: UploadStreams
    transfer_seconds: float

    def handlers(self) -> grpc.GenericRpcHandler:
        unary = grpc.unary_unary_rpc_method_handler
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "CheckIn": unary(self._check_in),
            "DownloadAdapter": grpc.unary_stream_rpc_method_handler(self._download_adapter),
            # Unary on the wire. grpc.aio would hold the whole message until the call ends.
            "SubmitUpdate": grpc.stream_unary_rpc_method_handler(self._submit_update),
            "StreamUpdate": grpc.stream_unary_rpc_method_handler(self._stream_update),
            "QueryUpload": unary(self._query_upload),
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

    async def _submit_update(self, _: AsyncIterator[bytes], context: Context) -> bytes:
        async with self.calls.guard("SubmitUpdate", context) as call:
            request = parse(pb.SubmitUpdateRequest, await self._whole_message(context))
            # The message has a copy of the payload, and every access to the field makes another.
            payload = request.payload
            _count_up(call, len(payload))
            try:
                header = read_header(request.header)
                self.uploads.take(len(payload))
            except Refusal:
                # Nobody else learns that it arrived.
                charge = partial(self._charge, call.caller, request.header.assignment_id)
                self.calls.later(charge, len(payload))
                raise
            del request
            try:
                receipt = await self.calls.work(self.submit_update, call.caller, header, payload)
            finally:
                self.uploads.give_back(len(payload))
            _count_receipt(call, receipt)
            return pb.SubmitUpdateResponse(
                receipt=encode_receipt(receipt), retry_window=encode_retry_window(receipt.policy)
            ).SerializeToString()

    def _charge(self, device_id: UUID, assignment_id: bytes, payload_bytes: int) -> None:
        with suppress(Refusal):
            read = read_uuid(assignment_id, "assignment_id")
            self.submit_update.charge(device_id, read, payload_bytes)

    async def _whole_message(self, context: Context) -> bytes:
        async with asyncio.timeout(self.transfer_seconds):
            data: object = await context.read()
        if not isinstance(data, bytes):
            raise Refusal(Reason.MALFORMED_MESSAGE, "no whole message arrived")
        return data

    async def _stream_update(self, parts: AsyncIterator[bytes], context: Context) -> bytes:
        async with self.calls.guard("StreamUpdate", context) as call:
            header = read_header(await self.uploads.read_header(parts))
            upload = await self.calls.work(self.receive_upload.begin, call.caller, header)
            await context.send_initial_metadata((UPLOAD_OPEN,))
            await self._receive(call, parts, UploadStream(upload=upload))
            with self.uploads.room_for(upload.size_bytes):
                receipt = await self.calls.work(self.receive_upload, call.caller, upload)
            _count_receipt(call, receipt)
            return pb.StreamUpdateResponse(
                receipt=encode_receipt(receipt), retry_window=encode_retry_window(receipt.policy)
            ).SerializeToString()

    async def _receive(self, call: Call, parts: AsyncIterator[bytes], stream: UploadStream) -> None:
        receive, upload = self.receive_upload, stream.upload
        try:
            await stream.read(
                parts, self.uploads, partial(self.calls.work_to_the_end, receive.keep, upload)
            )
            if stream.uncharged_bytes:
                due, stream.uncharged_bytes = stream.uncharged_bytes, 0
                await self.calls.work_to_the_end(receive.charge, upload, due)
        finally:
            _count_up(call, stream.received_bytes)
            if stream.uncharged_bytes:
                self.calls.later(receive.charge, upload, stream.uncharged_bytes)

    async def _query_upload(self, data: bytes, context: Context) -> bytes:
        async with self.calls.guard("QueryUpload", context) as call:
            assignment_id, payload_sha256 = read_upload_query(parse(pb.QueryUploadRequest, data))
            durable_bytes = await self.calls.work(
                self.receive_upload.durable_bytes, call.caller, assignment_id, payload_sha256
            )
            call.facts["received_bytes"] = durable_bytes
            return pb.QueryUploadResponse(received_bytes=durable_bytes).SerializeToString()

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


def _count_up(call: Call, payload_bytes: int) -> None:
    call.facts["payload_bytes_up"] = payload_bytes
    PAYLOAD_BYTES.labels(direction="up").inc(payload_bytes)


def _count_receipt(call: Call, receipt: Receipt) -> None:
    call.facts["duplicate"] = receipt.duplicate
    if not receipt.duplicate:
        UPDATES_ACCEPTED.inc()
