"""What the real lark-oapi SDK does, as a program of its own (it takes seconds to import): `python sdk.py WHAT`, with
its arguments as one JSON object on stdin. `once` prints one JSON object; `listen` prints lines."""

from __future__ import annotations

import base64
import gc
import json
import sys
from typing import Any

gc.disable()

OUT, sys.stdout = sys.stdout, sys.stderr  # the SDK logs to what is stdout when it is imported

import lark_oapi as lark
from lark_oapi.api.apaas.v1 import (
    RecordsGetWorkspaceTableRequest,
    RecordsPostWorkspaceTableRequest,
    RecordsPostWorkspaceTableRequestBody,
)
from lark_oapi.api.authen.v1 import (
    CreateOidcAccessTokenRequest,
    CreateOidcAccessTokenRequestBody,
    CreateOidcRefreshAccessTokenRequest,
    CreateOidcRefreshAccessTokenRequestBody,
    GetUserInfoRequest,
)
from lark_oapi.api.im.v1 import (
    CreateMessageRequest,
    CreateMessageRequestBody,
    PatchMessageRequest,
    PatchMessageRequestBody,
)
from lark_oapi.event.callback.model.p2_card_action_trigger import P2CardActionTrigger, P2CardActionTriggerResponse
from lark_oapi.ws.exception import ClientException

gc.freeze()


def told(response: Any) -> dict[str, Any]:
    data = json.loads(lark.JSON.marshal(response.data)) if getattr(response, "data", None) is not None else None
    return {"code": response.code, "msg": response.msg, "data": data}


def calls(given: dict[str, Any]) -> dict[str, Any]:
    """The calls of an app and of a user, in order."""
    client = lark.Client.builder().app_id(given["app_id"]).app_secret(given["app_secret"])
    client = client.domain(given["url"]).enable_set_token(True).log_level(lark.LogLevel.ERROR).build()
    app = lark.Client.builder().app_id(given["app_id"]).app_secret(given["app_secret"]).domain(given["url"]).build()
    out: dict[str, Any] = {}

    body = CreateOidcAccessTokenRequestBody.builder().grant_type("authorization_code").code(given["code"]).build()
    request = CreateOidcAccessTokenRequest.builder().request_body(body).build()
    out["token"] = told(app.authen.v1.oidc_access_token.create(request))
    out["used_code"] = told(app.authen.v1.oidc_access_token.create(request))
    refresh = CreateOidcRefreshAccessTokenRequestBody.builder().grant_type("refresh_token")
    refresh = refresh.refresh_token(out["token"]["data"]["refresh_token"]).build()
    again = CreateOidcRefreshAccessTokenRequest.builder().request_body(refresh).build()
    out["refreshed"] = told(app.authen.v1.oidc_refresh_access_token.create(again))
    out["used_refresh"] = told(app.authen.v1.oidc_refresh_access_token.create(again))

    def as_user(token: str) -> lark.RequestOption:
        return lark.RequestOption.builder().user_access_token(token).build()

    own = as_user(out["refreshed"]["data"]["access_token"])
    out["user_info"] = told(client.authen.v1.user_info.get(GetUserInfoRequest.builder().build(), own))
    out["foreign"] = told(client.authen.v1.user_info.get(GetUserInfoRequest.builder().build(), as_user("u-x")))

    rows = RecordsPostWorkspaceTableRequestBody.builder().records(json.dumps([{"title": "一"}])).build()
    post = RecordsPostWorkspaceTableRequest.builder().workspace_id("w1").table_name("tasks").request_body(rows).build()
    out["written"] = told(client.apaas.v1.workspace_table.records_post(post, own))
    get = RecordsGetWorkspaceTableRequest.builder().workspace_id("w1").table_name("tasks").build()
    out["rows"] = told(client.apaas.v1.workspace_table.records_get(get, own))

    def message(receiver: str, card: object) -> Any:
        body = CreateMessageRequestBody.builder().receive_id(receiver).msg_type("interactive").uuid("once")
        body = body.content(json.dumps(card)).build()
        return CreateMessageRequest.builder().receive_id_type("open_id").request_body(body).build()

    out["sent"] = told(app.im.v1.message.create(message("ou_ada", given["card"])))
    out["sent_again"] = told(app.im.v1.message.create(message("ou_ada", given["card"])))
    out["nobody"] = told(app.im.v1.message.create(message("ou_nobody", given["card"])))
    patch = PatchMessageRequest.builder().message_id(out["sent"]["data"]["message_id"])
    content = PatchMessageRequestBody.builder().content(json.dumps(given["changed"])).build()
    out["updated"] = told(app.im.v1.message.patch(patch.request_body(content).build()))
    return out


def dispatch(encrypt_key: str, verification_token: str, requests: list[Any]) -> list[Any]:
    """What the SDK's own handler of callbacks says to each request; the clicks that it saw."""
    seen: list[Any] = []
    handler = lark.EventDispatcherHandler.builder(encrypt_key, verification_token)
    handler = handler.register_p2_card_action_trigger(lambda event: click(event, seen)).build()
    answers = []
    for headers, body in requests:
        request = lark.RawRequest()
        request.uri, request.headers, request.body = "/callback/lark", headers, base64.b64decode(body)
        response = handler.do(request)
        answers.append([response.status_code, json.loads(response.content)])
    return [answers, seen]


def refused(given: dict[str, Any]) -> int:
    """The code with which a long connection is refused that names a wrong secret."""
    client = lark.ws.Client(given["app_id"], "wrong", domain=given["url"], log_level=lark.LogLevel.ERROR)
    try:
        client.start()
    except ClientException as error:
        return int(error.code)
    return 0


def once(given: dict[str, Any]) -> dict[str, Any]:
    dispatched = [dispatch(**part) for part in given["dispatch"]]
    return {"calls": calls(given), "dispatched": dispatched, "refused": refused(given)}


def click(event: P2CardActionTrigger, seen: list[Any]) -> P2CardActionTriggerResponse:
    seen.append([event.event.operator.open_id, event.event.action.value, event.event.context.open_message_id])
    if event.event.action.value.get("action") == "raise":
        raise RuntimeError("as asked")
    return P2CardActionTriggerResponse({"toast": {"type": "info", "content": "已取消授权"}})


def listen(given: dict[str, Any]) -> None:
    """Hold the long connection; a line for each click."""

    def tell(event: P2CardActionTrigger) -> P2CardActionTriggerResponse:
        seen: list[Any] = []
        try:
            return click(event, seen)
        finally:
            OUT.write(json.dumps(seen[0]) + "\n")
            OUT.flush()

    handler = lark.EventDispatcherHandler.builder("", "").register_p2_card_action_trigger(tell).build()
    client = lark.ws.Client(
        given["app_id"], given["app_secret"], event_handler=handler, domain=given["url"], log_level=lark.LogLevel.DEBUG
    )
    client.start()


if __name__ == "__main__":
    result = globals()[sys.argv[1]](json.load(sys.stdin))
    OUT.write(json.dumps(result) + "\n")
    OUT.flush()  # nobody does it at the end: what is frozen is not collected
