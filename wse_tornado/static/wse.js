/**
 * A client for `wse_tornado` servers in browsers and in Node: one user, several devices, messages
 * and calls both ways. One module without dependencies; the server serves it beside its socket:
 *
 *     import { WseClient } from "/ws/wse.js"
 *
 *     const client = new WseClient({ reconnect: true })
 *     client.channel.on("news", (payload) => console.log(payload))
 *     const welcome = await client.connect("your-secret-key", { device: "browser" })
 *     console.log(await client.call("add", { a: 5, b: 3 }))
 *
 * Times are seconds.
 */

/** Codes of errors: those of the wire, and below them those that never leave this program. */
export const WSE_ERROR = Object.freeze({
  INVALID_CRA_HANDLER: "wse.client.invalid-cra-handler",
  RP_TIMEOUT: "wse.client.rp.timeout",
  RP_DISCONNECT: "wse.client.rp.disconnect",
  CLIENT_ALREADY_CONNECTED: "wse.client.already-connected",
  WS_CLIENT_ERROR: "wse.client.ws-error",
  NOT_AUTHORIZED: "wse.not-authorized",
  CONNECTION_NOT_READY: "wse.client.not-ready",
  NO_CLIENT_CONNECTION: "wse.server.client.connection-missing",
  IDENTIFY_HANDLER_MISSING: "wse.server.auth.identify-handler-missing",
  INVALID_CRA_GENERATOR: "wse.server.auth.invalid-cra-generator",
  RP_EXECUTION_FAILED: "wse.server.rp.failed",
  RP_NOT_REGISTERED: "wse.server.rp.not-registered",
  RP_ALREADY_REGISTERED: "wse.server.rp.already-registered",
  PROTOCOL_VIOLATION: "wse.server.protocol-violation",
  CONNECTION_ERROR: "wse.server.connection-error",
  MESSAGE_PROCESSING_ERROR: "wse.server.msg-processing-error",

  CONNECT_TIMEOUT: "wse.client.connect-timeout",
  NOT_SERIALIZABLE: "wse.not-serializable",
  HANDLER_FAILED: "wse.handler-failed",
  SEND_BUFFER_FULL: "wse.client.send-buffer-full",
})

/** Reasons of closings. A server's `drop("any text")` sends others. */
export const WSE_REASON = Object.freeze({
  BY_CLIENT: "wse.by-client",
  BY_SERVER: "wse.by-server",
  NOT_AUTHORIZED: "wse.not-authorized",
  PROTOCOL_ERR: "wse.protocol-error",
  CLIENTS_CONCURRENCY: "wse.clients-concurrency",
  JUMP: "jump",
  NO_REASON: "",
  SLOW_CONSUMER: "wse.slow-consumer",
  SERVER_STOPPING: "wse.server-stopping",
  SERVER_FULL: "wse.server-full",
  AUTH_TIMEOUT: "wse.auth-timeout",
  HEARTBEAT: "wse.heartbeat-timeout",
  RATE_LIMIT: "wse.rate-limit",
  QUEUE_OVERFLOW: "wse.queue-overflow",
})

/** What a client is doing. */
export const WSE_STATUS = Object.freeze({
  IDLE: "IDLE",
  CONNECTING: "CONNECTING",
  READY: "READY",
  OFFLINE: "OFFLINE",
  RE_CONNECTING: "RE_CONNECTING",
})

const RESERVED_PREFIX = "~wse:"
const OPENING = 0 // a WebSocket's readyState
const OPEN = 1
const NORMAL = 1000
const ABNORMAL = 1006
const JUMPING = 4000
// Closings after which coming back makes sense; 1000 is final whatever its reason.
const PASSING_CODES = new Set([1005, ABNORMAL, 1011, 1012, 1013, 1014, JUMPING])
const MAX_REASON_BYTES = 123
const MAX_SEND_BUFFER = 4 * 1024 * 1024 // bytes that may wait for a slow server
const CLOSE_TIMEOUT = 3
const LONGEST_TIMER = 0x7fffffff // milliseconds; a longer one would fire at once

/** What goes wrong, and what a procedure throws to answer a call with a code of its own. */
export class WseError extends Error {
  /**
   * @param {string} code - A stable name for the problem, such as "shop.sold-out".
   * @param {Object<string, any>} [details] - Keys that say more; sent to the other end when a
   *   procedure throws the error.
   * @param {string} [message] - One readable sentence.
   * @param {{ cause?: any }} [options]
   */
  constructor(code, details = {}, message = code, options = undefined) {
    super(message, options)
    this.name = "WseError"
    /** @type {string} */
    this.code = code
    /** @type {Object<string, any>} */
    this.details = details
    /** The procedure, where a call failed. @type {string | undefined} */
    this.rpc = undefined
  }
}

/**
 * The default protocol: JSON arrays `[type, payload, stamp]`. Give another object of this form as
 * the option `protocol` to speak another one on both ends; `pack` returns a string, or bytes.
 */
export class JsonProtocol {
  constructor() {
    /** Offered as the WebSocket subprotocol. */
    this.name = "wse-default-json"
    /** @type {Object<string, any>} */
    this.internal_types = INTERNAL_TYPES
  }

  /**
   * @param {{ type: any, payload?: any, stamp?: any }} message
   * @returns {string | ArrayBuffer | Uint8Array}
   */
  pack({ type, payload = null, stamp = null }) {
    return JSON.stringify([type, payload, stamp], onlyJson)
  }

  /**
   * @param {string | ArrayBuffer} encoded
   * @returns {[any, any, any]} type, payload and stamp
   */
  unpack(encoded) {
    const text = typeof encoded === "string" ? encoded : UTF8.decode(encoded)
    const message = JSON.parse(text)
    if (!Array.isArray(message) || message.length === 0) {
      throw new TypeError("a message is a JSON array of one to three elements")
    }
    const [type, payload = null, stamp = null] = message
    if (type && typeof type !== "string") throw new TypeError("the type of a message is a string")
    return [type || null, payload, stamp]
  }
}

const INTERNAL_TYPES = Object.freeze({
  hi: "~wse:hi",
  challenge: "~wse:challenge",
  welcome: "~wse:welcome",
  call: "~wse:call",
  response: "~wse:response",
  response_error: "~wse:response-err",
})
const UTF8 = new TextDecoder("utf-8", { fatal: true })

/** JSON.stringify would write NaN and the infinities as null, silently. */
function onlyJson(_key, value) {
  if ((typeof value === "number" || value instanceof Number) && !Number.isFinite(+value)) {
    throw new TypeError(`${value} is not JSON`)
  }
  return value
}

/**
 * The answer to the quests of the server's `HmacChallenge`: `client.challenge(hmacSolver(secret))`.
 * It needs Web Crypto, which browsers have on https and on localhost only.
 *
 * @param {string | Uint8Array<ArrayBuffer>} secret
 * @returns {(quest: any) => Promise<string>}
 */
export function hmacSolver(secret) {
  const scheme = "wse-hmac-sha256"
  return async (quest) => {
    const message = quest?.message
    // Of no other scheme: a hostile server must not have other texts signed.
    if (typeof message !== "string" || !message.startsWith(`${scheme}:`)) {
      throw new TypeError(`the server's challenge is not of the scheme ${scheme}`)
    }
    const subtle = globalThis.crypto?.subtle
    if (!subtle) throw new Error("Web Crypto is missing: serve the page from https or localhost")
    const encoder = new TextEncoder()
    const bytes = typeof secret === "string" ? encoder.encode(secret) : secret
    const algorithm = { name: "HMAC", hash: "SHA-256" }
    const key = await subtle.importKey("raw", bytes, algorithm, false, ["sign"])
    const signature = await subtle.sign("HMAC", key, encoder.encode(message))
    return Array.from(new Uint8Array(signature), (b) => b.toString(16).padStart(2, "0")).join("")
  }
}

/**
 * Subscribe with `when.ready(fn)`, which returns a function that undoes it.
 *
 * @typedef {((fn: Function) => () => void) & {
 *   on: (fn: Function) => () => void,
 *   once: (fn: Function) => () => void,
 *   off: (fn: Function) => void,
 * }} Signal
 */

/**
 * @param {boolean} replays - Whether late subscribers get the last event.
 * @param {(error: any) => void} failed - Told what handlers throw.
 */
function makeSignal(replays, failed) {
  /** @type {{ fn: Function, once: boolean }[]} */
  let handlers = []
  /** @type {any[] | null} */
  let last = null
  const subscribe = (fn, once) => {
    checkFunction(fn, "a signal")
    const args = last
    const entry = { fn, once }
    if (args === null || !once) handlers = [...handlers, entry]
    if (args !== null) {
      // What came in the meantime has reached the handler already: the older would come last.
      queueMicrotask(() => {
        if (once || (args === last && handlers.includes(entry))) run(fn, args, failed)
      })
    }
    return () => {
      handlers = handlers.filter((other) => other !== entry)
    }
  }
  /** @type {any} */
  const signal = (fn) => subscribe(fn, false)
  signal.on = signal
  signal.once = (fn) => subscribe(fn, true)
  signal.off = (fn) => {
    handlers = handlers.filter((entry) => entry.fn !== fn)
  }
  const emit = (...args) => {
    if (replays) last = args
    const taken = handlers
    handlers = handlers.filter((entry) => !entry.once)
    for (const { fn } of taken) run(fn, args, failed)
    return taken.length > 0
  }
  const forget = () => {
    last = null
  }
  return { signal: /** @type {Signal} */ (signal), emit, forget }
}

/** Run a handler; neither what it throws nor what it rejects with is lost. */
function run(fn, args, failed) {
  try {
    const result = fn(...args)
    if (typeof result?.then === "function") result.then(undefined, failed)
  } catch (error) {
    failed(error)
  }
}

/** Handlers of messages, by type: `client.channel.on("news", (payload) => …)`. */
class Channel {
  /** @param {Map<any, string>} reserved @param {(error: any) => void} failed */
  constructor(reserved, failed) {
    this._reserved = reserved
    this._failed = failed
    /** @type {Map<any, { fn: Function, once: boolean }[]>} */
    this._handlers = new Map()
  }

  /**
   * Call `fn(payload)` for every message of this type.
   *
   * @param {any} type @param {(payload: any) => any} fn
   * @returns {() => void} undoes it
   */
  on(type, fn) {
    return this._subscribe(type, fn, false)
  }

  /**
   * Like `on`, for the next message only.
   *
   * @param {any} type @param {(payload: any) => any} fn
   * @returns {() => void} undoes it
   */
  once(type, fn) {
    return this._subscribe(type, fn, true)
  }

  /** Forget `fn` for this type, or every handler of the type. */
  off(type, fn = undefined) {
    this._keep(type, (entry) => fn !== undefined && entry.fn !== fn)
  }

  _subscribe(type, fn, once) {
    checkUserType(type, this._reserved, "channel.on")
    checkFunction(fn, `a handler of ${JSON.stringify(type)}`)
    const entry = { fn, once }
    this._handlers.set(type, [...(this._handlers.get(type) ?? []), entry])
    return () => this._keep(type, (other) => other !== entry)
  }

  _keep(type, wanted) {
    const left = (this._handlers.get(type) ?? []).filter(wanted)
    if (left.length) this._handlers.set(type, left)
    else this._handlers.delete(type)
  }

  _emit(type, payload) {
    const taken = this._handlers.get(type)
    if (!taken) return false
    this._keep(type, (entry) => !entry.once)
    for (const { fn } of taken) run(fn, [payload], this._failed)
    return true
  }
}

/**
 * How long to wait before coming back: a random time up to a ceiling that grows from `initial` by
 * `factor` to `maximum`. A connection that was ready for `lasting` seconds starts it over.
 *
 * @typedef {{ initial?: number, maximum?: number, factor?: number, lasting?: number }} Backoff
 */

/**
 * @typedef {Object} ClientOptions
 * @property {string | URL | (() => any)} [url] - `ws://…` or `wss://…`, or in a browser a path on
 *   the page's own host; or a function that returns it, asked at every connect. Left out, it is
 *   the server that this file came from.
 * @property {number} [timeout] - Seconds that `connect` and `call` may take; 20 by default.
 * @property {boolean | Backoff} [reconnect] - Come back after a passing loss.
 * @property {{ name: string, internal_types?: Object<string, any>, pack: Function,
 *   unpack: Function }} [protocol] - How messages are written; a JsonProtocol by default.
 * @property {any} [WebSocket] - The class to use; the global one by default. Node before 22 has
 *   none: give it that of the package `ws`.
 * @property {number} [tO] - Another name of `timeout`.
 * @property {boolean | Backoff} [re] - Another name of `reconnect`.
 */

/**
 * An authenticated WebSocket client.
 *
 * Its signals are in `when`: `connected()` the socket is open; `ready(welcome)` the server has let
 * the client in; `closed(code, reason)` a connection is over, a refused one too;
 * `updated(status)`; `ignored(type, payload)` a message that no handler takes; `error(error)` a
 * problem without a caller to throw in, which goes to the console where nobody listens. `ready`
 * and `updated` hand their last value to late subscribers.
 */
export class WseClient {
  /** @param {string | URL | ClientOptions} [options] - Or just the URL. */
  constructor(options = {}) {
    const given = typeof options === "string" || options instanceof URL ? { url: options } : options
    const { protocol = new JsonProtocol() } = given
    this._url = given.url
    /** @type {string | undefined} */
    this._lastUrl = undefined
    if (typeof this._url !== "function") resolveUrl(this._url)
    this._timeout = checkTimeout(given.timeout ?? given.tO ?? 20)
    this._backoff = checkBackoff(given.reconnect ?? given.re ?? false)
    this._protocol = protocol
    this._types = { ...INTERNAL_TYPES, ...protocol.internal_types }
    /** @type {Map<any, string>} */
    this._roles = new Map(Object.entries(this._types).map(([role, type]) => [type, role]))
    this._WebSocket = given.WebSocket ?? globalThis.WebSocket
    if (typeof this._WebSocket !== "function") {
      throw new TypeError("there is no WebSocket here; give the class as the option WebSocket")
    }

    const failed = (error) => this._report(handlerError(error))
    this._signals = {
      connected: makeSignal(false, failed),
      ready: makeSignal(true, failed),
      closed: makeSignal(false, failed),
      updated: makeSignal(true, failed),
      ignored: makeSignal(false, failed),
      error: makeSignal(false, (error) => console.error(error)),
    }
    /**
     * @type {Readonly<Record<"connected" | "ready" | "closed" | "updated" | "ignored" | "error",
     *   Signal>>}
     */
    this.when = Object.freeze(
      /** @type {any} */ (
        Object.fromEntries(Object.entries(this._signals).map(([name, { signal }]) => [name, signal]))
      ),
    )
    /** Handlers of messages, by type. */
    this.channel = new Channel(this._roles, failed)
    /** @type {Map<string, (payload: any) => any>} */
    this._procedures = new Map()
    /** @type {Function | null} */
    this._solver = null
    this._identity = undefined
    this._meta = undefined
    /** @type {Link | null} */
    this._link = null
    /** @type {Session | null} */
    this._session = null
    /** @type {string} */
    this._status = WSE_STATUS.IDLE
    this._signals.updated.emit(this._status)
  }

  /** What the client is doing now: one of WSE_STATUS. */
  get status() {
    return this._status
  }

  /**
   * Where the client connects; a function given as `url` counts with its last answer, and with
   * undefined before the first.
   *
   * @returns {string | undefined}
   */
  get url() {
    return typeof this._url === "function" ? this._lastUrl : resolveUrl(this._url)
  }

  /**
   * Solve the server's challenges with what `fn(quest)` returns or resolves to. A function of two
   * parameters, `fn(quest, solve)`, calls `solve(solution)` instead.
   *
   * @param {(quest: any, solve?: any) => any} fn
   */
  challenge(fn) {
    checkFunction(fn, "challenge")
    this._solver = fn
  }

  /**
   * Connect and get in. With `reconnect`, a server that cannot be reached is tried again until the
   * time is over.
   *
   * @param {any} [identity] - Who this is; or a function (async, if you like) that returns it,
   *   asked again at every reconnect.
   * @param {any} [meta] - What to tell about this device, an object; or a function likewise.
   * @param {{ timeout?: number }} [options]
   * @returns {Promise<any>} The welcome of the server.
   * @throws {WseError} NOT_AUTHORIZED, INVALID_CRA_HANDLER, CONNECT_TIMEOUT, WS_CLIENT_ERROR (the
   *   server cannot be reached, or hung up), PROTOCOL_VIOLATION, NOT_SERIALIZABLE, or
   *   CLIENT_ALREADY_CONNECTED.
   */
  async connect(identity = null, meta = undefined, { timeout = this._timeout } = {}) {
    if (this._session) {
      throw new WseError(
        WSE_ERROR.CLIENT_ALREADY_CONNECTED,
        { status: this._status },
        `the client is ${this._status} already`,
      )
    }
    checkTimeout(timeout)
    if (typeof meta !== "function") checkMeta(meta)
    this._identity = identity
    this._meta = meta
    return this._begin(timeout)
  }

  /**
   * Leave for another server: close with 4000 "jump", connect there.
   *
   * @param {string | URL | (() => any)} url - Where to.
   * @param {any} [identity] - Who to be there; left out, as before.
   * @param {any} [meta] - What to tell there; left out, as before.
   * @param {{ timeout?: number }} [options]
   * @returns {Promise<any>} The new server's welcome.
   * @throws {WseError} As `connect`.
   */
  async jump(url, identity = undefined, meta = undefined, { timeout = this._timeout } = {}) {
    if (typeof url !== "function") resolveUrl(url)
    checkTimeout(timeout)
    if (typeof meta !== "function") checkMeta(meta)
    const session = this._session
    this._session = null
    session?.end(closedError("the client jumped to another server"))
    this._link?.close(JUMPING, WSE_REASON.JUMP)
    this._url = url
    this._identity = identity ?? this._identity
    this._meta = meta ?? this._meta
    return this._begin(timeout)
  }

  /**
   * Close, whatever the client is doing: it ends a connect, a reconnection and every call. Handlers
   * stay registered, and the client may connect again. `close("reason")` closes with 1000.
   *
   * @param {number | string} [code] - 1000, or 3000 to 4999; or the reason.
   * @param {string} [reason]
   * @returns {Promise<void>} Resolved when the socket is closed, or 3 seconds have passed.
   */
  async close(code = NORMAL, reason = WSE_REASON.BY_CLIENT) {
    if (typeof code === "string") {
      reason = code
      code = NORMAL
    }
    if (code !== NORMAL && !(Number.isInteger(code) && code >= 3000 && code <= 4999)) {
      throw new RangeError(`a client closes with 1000, or 3000 to 4999, not ${code}`)
    }
    const session = this._session
    const link = this._link
    this._session = null
    link?.close(code, reason)
    if (session) {
      this._setStatus(WSE_STATUS.OFFLINE)
      session.end(closedError("the client was closed while it was connecting"))
    }
    if (!link) return
    const timer = setTimer(link.resolveGone, CLOSE_TIMEOUT)
    await link.gone
    clearTimeout(timer)
  }

  /**
   * Send a message to the server.
   *
   * @param {any} type @param {any} [payload]
   * @throws {WseError} CONNECTION_NOT_READY; NOT_SERIALIZABLE; SEND_BUFFER_FULL, the server does not
   *   take what waits already. Nothing of it was sent.
   */
  send(type, payload = undefined) {
    checkUserType(type, this._roles, "send")
    const packed = this._pack(type, payload)
    this._readyLink(`send ${JSON.stringify(type)}`).socket.send(packed)
  }

  /**
   * Call a procedure of the server.
   *
   * @param {string} name @param {any} [payload] @param {{ timeout?: number }} [options]
   * @returns {Promise<any>} What it returned.
   * @throws {WseError} RP_TIMEOUT, RP_NOT_REGISTERED, RP_DISCONNECT, CONNECTION_NOT_READY,
   *   NOT_SERIALIZABLE, SEND_BUFFER_FULL, or the code that the procedure raised (RP_EXECUTION_FAILED, if none).
   */
  async call(name, payload = undefined, { timeout = this._timeout } = {}) {
    checkName(name, this._roles, "call")
    checkTimeout(timeout)
    const link = this._readyLink(`call "${name}"`)
    let stamp = makeStamp()
    while (link.pending.has(stamp)) stamp = makeStamp()
    const packed = this._pack(name, payload, stamp)
    return new Promise((resolve, reject) => {
      const timer = setTimer(() => {
        link.pending.delete(stamp)
        const details = { rpc: name, timeout }
        const text = `no answer to the call of "${name}" within ${timeout} s`
        reject(callError(name, WSE_ERROR.RP_TIMEOUT, details, text))
      }, timeout)
      link.pending.set(stamp, { name, resolve, reject, timer })
      link.socket.send(packed)
    })
  }

  /**
   * Answer the server's calls of `name` with what `fn(payload)` returns or resolves to. What it
   * throws reaches the caller: code and details of a WseError, name and text of anything else.
   *
   * @param {string} name @param {(payload: any) => any} fn
   * @throws {WseError} RP_ALREADY_REGISTERED
   */
  register(name, fn) {
    checkName(name, this._roles, "register")
    checkFunction(fn, `the procedure "${name}"`)
    if (this._procedures.has(name)) {
      const text = `the procedure "${name}" is registered already`
      throw new WseError(WSE_ERROR.RP_ALREADY_REGISTERED, { rpc: name }, text)
    }
    this._procedures.set(name, fn)
  }

  /**
   * Forget a procedure.
   *
   * @param {string} name
   * @throws {WseError} RP_NOT_REGISTERED
   */
  unregister(name) {
    if (!this._procedures.delete(name)) {
      const text = `there is no procedure "${name}"`
      throw new WseError(WSE_ERROR.RP_NOT_REGISTERED, { rpc: name }, text)
    }
  }

  // -- for this module

  _begin(timeout) {
    const session = new Session(this, timeout)
    this._session = session
    this._setStatus(WSE_STATUS.CONNECTING)
    session.run()
    return session.settled
  }

  _setStatus(status) {
    if (status === this._status) return
    this._status = status
    this._signals.updated.emit(status)
  }

  _readyLink(what) {
    const link = this._link
    if (!link?.ready || link.socket.readyState !== OPEN) {
      const text = `cannot ${what}: the client is ${this._status}`
      throw new WseError(WSE_ERROR.CONNECTION_NOT_READY, { status: this._status }, text)
    }
    const waiting = link.socket.bufferedAmount
    if (waiting > MAX_SEND_BUFFER) {
      const text = `cannot ${what}: ${waiting} bytes wait to be sent already`
      throw new WseError(WSE_ERROR.SEND_BUFFER_FULL, { waiting }, text)
    }
    return link
  }

  _pack(type, payload, stamp = undefined) {
    try {
      return this._protocol.pack({ type, payload, stamp })
    } catch (cause) {
      const text = `the payload of ${String(type)} cannot be packed: ${describe(cause)}`
      throw new WseError(WSE_ERROR.NOT_SERIALIZABLE, { type }, text, { cause })
    }
  }

  _report(error) {
    if (!this._signals.error.emit(error)) console.error(error)
  }
}

/** One `connect` of a client and all the coming back that follows from it. */
class Session {
  /** @param {WseClient} client @param {number} timeout */
  constructor(client, timeout) {
    this.client = client
    this.timeout = timeout
    this.wake = () => {}
    this.settled = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
  }

  get current() {
    return this.client._session === this
  }

  /** It is over: whoever waits for it learns why. */
  end(error) {
    this.reject(error)
    this.wake()
  }

  async run() {
    const client = this.client
    const deadline = now() + this.timeout
    let attempt = 0
    while (this.current) {
      const first = client._status === WSE_STATUS.CONNECTING
      let error
      try {
        const limit = first ? Math.max(0, deadline - now()) : client._timeout
        const link = await this.getIn(limit)
        const began = now()
        await link.over
        if (!this.current || !client._backoff) return
        if (now() - began >= client._backoff.lasting) attempt = 0
        await this.pause(delay(client._backoff, attempt++))
        continue
      } catch (problem) {
        error = problem
      }
      if (!this.current) return
      if (!client._backoff || !error.passing) {
        this.finish(error)
        return
      }
      const seconds = delay(client._backoff, attempt++)
      if (!first) client._report(error)
      else if (now() + seconds >= deadline) {
        this.finish(error)
        return
      }
      await this.pause(seconds)
    }
  }

  finish(error) {
    const client = this.client
    const first = client._status === WSE_STATUS.CONNECTING
    client._session = null
    client._setStatus(WSE_STATUS.OFFLINE)
    if (!error) return
    if (first) this.reject(error)
    else client._report(error)
  }

  /** One try, within so many seconds. */
  async getIn(seconds) {
    /** @type {Link | null} */
    let link = null
    let timer
    let late = false
    const timedOut = new Promise((_, reject) => {
      timer = setTimer(() => {
        late = true
        const text = "the server did not let the client in in time"
        reject(passing(new WseError(WSE_ERROR.CONNECT_TIMEOUT, {}, text), true))
        link?.close(NORMAL, WSE_REASON.BY_CLIENT)
      }, seconds)
    })
    const work = async () => {
      const client = this.client
      const url = resolveUrl(await ask(client._url))
      client._lastUrl = url
      const identity = (await ask(client._identity)) ?? null
      const meta = checkMeta(await ask(client._meta)) ?? {}
      const hi = client._pack(client._types.hi, { identity, meta })
      if (late || !this.current) throw closedError("the client was closed while it was connecting")
      link = new Link(client, this, url, hi)
      await link.welcomed
      return link
    }
    const working = work()
    working.catch(() => {}) // after a time-out nobody waits for it
    try {
      return await Promise.race([working, timedOut])
    } catch (error) {
      if (error instanceof WseError) throw error
      const text = `connecting failed: ${describe(error)}`
      throw new WseError(WSE_ERROR.WS_CLIENT_ERROR, {}, text, { cause: error })
    } finally {
      clearTimeout(timer)
    }
  }

  /** Its connection is over: come back, or not. */
  lost(code) {
    const client = this.client
    if (!this.current || client._status !== WSE_STATUS.READY) return
    if (client._backoff && PASSING_CODES.has(code)) client._setStatus(WSE_STATUS.RE_CONNECTING)
    else this.finish(null)
  }

  /** Wait before the next attempt; not any longer once the network is back. */
  async pause(seconds) {
    if (!this.current) return
    const target = typeof globalThis.addEventListener === "function" ? globalThis : null
    let timer
    await new Promise((resolve) => {
      this.wake = () => resolve(undefined)
      timer = setTimer(this.wake, seconds)
      target?.addEventListener("online", this.wake)
    })
    clearTimeout(timer)
    target?.removeEventListener("online", this.wake)
  }
}

/** One connection, from opening the socket to its end. */
class Link {
  /** @param {WseClient} client @param {Session} session @param {string} url @param {any} hi */
  constructor(client, session, url, hi) {
    this.client = client
    this.session = session
    this.ready = false
    this.ended = false
    /** @type {Map<string, { name: string, resolve: Function, reject: Function, timer: any }>} */
    this.pending = new Map()
    /** Resolved when the connection is over for the client. */
    this.over = new Promise((resolve) => (this.resolveOver = resolve))
    /** Resolved when the socket itself is closed. */
    this.gone = new Promise((resolve) => (this.resolveGone = resolve))
    this.welcomed = new Promise((resolve, reject) => {
      this.welcome = resolve
      this.fail = reject
    })
    this.welcomed.catch(() => {})
    const socket = new client._WebSocket(url, client._protocol.name)
    this.socket = socket
    client._link = this
    socket.binaryType = "arraybuffer"
    socket.onopen = () => this.opened(hi)
    socket.onmessage = (event) => this.received(event.data)
    socket.onerror = () => {
      // A close event follows and says as much, but in Node 20 and 21 where the server was not
      // reached: there, the socket stays as it is.
      if (socket.readyState === OPENING) gone(ABNORMAL, "")
    }
    const gone = (code, reason) => {
      this.end(code, reason)
      this.resolveGone(undefined)
    }
    socket.onclose = (event) => gone(event.code, event.reason)
  }

  opened(hi) {
    if (this.ended) return
    const { _signals, _protocol } = this.client
    _signals.connected.emit()
    if (this.socket.protocol !== _protocol.name) {
      const text = `the server does not speak "${_protocol.name}"`
      const details = { subprotocol: this.socket.protocol }
      this.giveUp(new WseError(WSE_ERROR.PROTOCOL_VIOLATION, details, text), WSE_REASON.PROTOCOL_ERR)
      return
    }
    this.socket.send(hi)
  }

  /** Close; for the client it is over at once. */
  close(code, reason) {
    if (this.ended) return
    const cut = cutReason(reason)
    this.socket.close(code, cut)
    this.end(code, cut)
  }

  /** Close a connection that cannot go on. @param {WseError} error @param {string} [reason] */
  giveUp(error, reason = WSE_REASON.BY_CLIENT) {
    this.fail(error)
    this.close(NORMAL, reason)
  }

  /** It is over: calls fail now, signals tell, the session goes on from here. */
  end(code, reason) {
    if (this.ended) return
    this.ended = true
    this.ready = false
    const client = this.client
    for (const { name, reject, timer } of this.pending.values()) {
      clearTimeout(timer)
      const text = `the connection ended (${code} ${reason}) before the answer came: "${name}"`
      reject(callError(name, WSE_ERROR.RP_DISCONNECT, { disconnected: [code, reason] }, text))
    }
    this.pending.clear()
    this.fail(hungUp(code, reason))
    if (client._link === this) {
      client._link = null
      client._signals.ready.forget()
    }
    client._signals.closed.emit(code, reason)
    this.session.lost(code)
    this.resolveOver(undefined)
  }

  received(data) {
    if (this.ended) return
    let message
    try {
      message = this.client._protocol.unpack(data)
    } catch (cause) {
      const text = `a message does not decode as ${this.client._protocol.name}: ${describe(cause)}`
      this.badMessage(new WseError(WSE_ERROR.MESSAGE_PROCESSING_ERROR, {}, text, { cause }))
      return
    }
    const [type, payload, stamp] = message
    const role = this.client._roles.get(type)
    if (this.ready) this.route(role, type, payload, stamp)
    else this.beforeReady(role, type, payload)
  }

  beforeReady(role, type, payload) {
    const client = this.client
    if (role === "welcome") {
      this.ready = true
      client._setStatus(WSE_STATUS.READY)
      client._signals.ready.emit(payload)
      this.session.resolve(payload)
      this.welcome(payload)
    } else if (role === "challenge") {
      this.solve(payload)
    } else {
      client._signals.ignored.emit(type, payload)
    }
  }

  async solve(quest) {
    const client = this.client
    const solver = client._solver
    if (!solver) {
      const text = "the server sets a challenge; solve it with client.challenge(fn)"
      this.giveUp(new WseError(WSE_ERROR.INVALID_CRA_HANDLER, {}, text))
      return
    }
    try {
      const solution = await new Promise((solve, fail) => {
        const returned = Promise.resolve(solver(quest, solve))
        returned.then((value) => solver.length < 2 && solve(value), fail)
      })
      if (!this.ended) this.socket.send(client._pack(client._types.challenge, solution))
    } catch (cause) {
      const text = `the challenge solver failed: ${describe(cause)}`
      this.giveUp(new WseError(WSE_ERROR.INVALID_CRA_HANDLER, {}, text, { cause }))
    }
  }

  route(role, type, payload, stamp) {
    if (role === undefined) {
      if (!stamp) this.deliver(type, payload)
      else if (typeof stamp === "string") this.serve(type, payload, stamp)
      else this.violation("a stamp is not a string")
    } else if ((role === "response" || role === "response_error") && stamp) {
      this.answered(role, payload, stamp)
    } else {
      this.violation(`a message of the type "${role}" makes no sense now`)
    }
  }

  deliver(type, payload) {
    if (type === null || type === undefined || type === "") {
      this.violation("a message has neither type nor stamp")
    } else if (!this.client.channel._emit(type, payload)) {
      if (isReserved(type)) this.violation(`the type "${type}" is unknown`)
      else this.client._signals.ignored.emit(type, payload)
    }
  }

  answered(role, payload, stamp) {
    const call = this.pending.get(stamp)
    if (!call) return // it came after its time-out; an answer to it would bounce for ever
    this.pending.delete(stamp)
    clearTimeout(call.timer)
    if (role === "response") call.resolve(payload)
    else call.reject(errorFromPayload(call.name, payload))
  }

  async serve(name, payload, stamp) {
    const client = this.client
    const { response, response_error } = client._types
    const fn = client._procedures.get(name)
    if (!fn) {
      if (isReserved(name)) this.violation(`a call of "${name}", which belongs to the library`)
      else this.reply(client._pack(response_error, { code: WSE_ERROR.RP_NOT_REGISTERED }, stamp))
      return
    }
    let packed
    try {
      const result = await fn(payload)
      try {
        packed = client._pack(response, result, stamp)
      } catch (cause) {
        throw new TypeError(`the result of "${name}" cannot be packed`, { cause })
      }
    } catch (cause) {
      if (!(cause instanceof WseError)) {
        const text = `the procedure "${name}" failed: ${describe(cause)}`
        const details = { rpc: name, origin: originOf(cause) }
        client._report(new WseError(WSE_ERROR.RP_EXECUTION_FAILED, details, text, { cause }))
      }
      packed = this.packError(name, cause, stamp)
    }
    this.reply(packed)
  }

  packError(name, error, stamp) {
    const client = this.client
    const type = client._types.response_error
    try {
      return client._pack(type, payloadFromError(name, error), stamp)
    } catch (unpackable) {
      client._report(unpackable)
      return client._pack(type, { code: error.code, details: { rpc: name } }, stamp)
    }
  }

  reply(packed) {
    if (!this.ended) this.socket.send(packed)
  }

  violation(what) {
    const text = `protocol violation: ${what}`
    this.badMessage(new WseError(WSE_ERROR.PROTOCOL_VIOLATION, {}, text))
  }

  badMessage(error) {
    this.client._report(error)
    this.giveUp(error, WSE_REASON.PROTOCOL_ERR)
  }
}

// -- errors

function callError(name, code, details, message) {
  const error = new WseError(code, details, message)
  error.rpc = name
  return error
}

function closedError(message) {
  return new WseError(WSE_ERROR.WS_CLIENT_ERROR, {}, message)
}

/** Mark whether another attempt may end better. */
function passing(error, value) {
  Object.defineProperty(error, "passing", { value, enumerable: false })
  return error
}

/** Why a connection ended before it was ready. */
function hungUp(code, reason) {
  const details = { code, reason }
  if (code === NORMAL && reason === WSE_REASON.NOT_AUTHORIZED) {
    return new WseError(WSE_ERROR.NOT_AUTHORIZED, details, "the server refused this identity")
  }
  if (code === NORMAL && reason === WSE_REASON.PROTOCOL_ERR) {
    const text = "the server closed with wse.protocol-error: it speaks another protocol"
    return new WseError(WSE_ERROR.PROTOCOL_VIOLATION, details, text)
  }
  const text = `the server cannot be reached, or hung up: ${`${code} ${reason}`.trim()}`
  const error = new WseError(WSE_ERROR.WS_CLIENT_ERROR, details, text)
  return passing(error, PASSING_CODES.has(code))
}

/** Read an error answer, however odd, so that the caller always gets an error. */
function errorFromPayload(name, payload) {
  const fields = isObject(payload) ? payload : {}
  const { code: given, message, details: inner, ...others } = fields
  const code = typeof given === "string" && given ? given : WSE_ERROR.RP_EXECUTION_FAILED
  /** @type {Object<string, any>} */
  let details = {}
  if (isObject(inner)) details = inner
  else if (inner !== null && inner !== undefined) details = { details: inner }
  if (!isObject(payload) && payload !== null) details.answer = payload
  details = { ...others, ...details }
  let text = `"${name}" failed at the other end: ${code}`
  if (code === WSE_ERROR.RP_NOT_REGISTERED) text = `the other end has no procedure "${name}"`
  else if (typeof message === "string" && message) {
    text = `"${name}" failed at the other end: ${message}`
  }
  return callError(name, code, details, text)
}

/** The payload of an error answer. The stack is not sent. */
function payloadFromError(name, error) {
  if (error instanceof WseError) {
    return { code: error.code, details: { rpc: name, ...error.details } }
  }
  if (isObject(error) && !(error instanceof Error)) {
    const message = originOf(error).message
    return { code: WSE_ERROR.RP_EXECUTION_FAILED, message, details: { rpc: name, ...error } }
  }
  const origin = originOf(error)
  return {
    code: WSE_ERROR.RP_EXECUTION_FAILED,
    message: origin.message || "Unexpected error",
    details: { origin, rpc: name },
  }
}

function originOf(error) {
  if (error instanceof Error) return { name: error.name, message: error.message }
  return { name: typeof error, message: describe(error) }
}

function handlerError(cause) {
  const details = { origin: originOf(cause) }
  return new WseError(WSE_ERROR.HANDLER_FAILED, details, `a handler failed: ${describe(cause)}`, {
    cause,
  })
}

function describe(error) {
  if (error instanceof Error) return error.message
  if (!isObject(error)) return String(error)
  return typeof error.message === "string" && error.message ? error.message : "Unexpected error"
}

// -- checks and small things

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

function isReserved(type) {
  return typeof type === "string" && type.startsWith(RESERVED_PREFIX)
}

function checkFunction(fn, what) {
  if (typeof fn !== "function") throw new TypeError(`${what} takes a function, not ${String(fn)}`)
}

function checkUserType(type, reserved, what) {
  if (reserved.has(type) || isReserved(type)) {
    throw new TypeError(`${what}: "${type}" belongs to the library; choose another name`)
  }
  if (!type || typeof type === "boolean") {
    throw new TypeError(`${what}: the type of a message is a non-empty string, not ${String(type)}`)
  }
}

function checkName(name, reserved, what) {
  if (typeof name !== "string") {
    throw new TypeError(`${what}: the name of a procedure is a string, not ${String(name)}`)
  }
  checkUserType(name, reserved, what)
}

function checkTimeout(timeout) {
  if (typeof timeout !== "number" || !(timeout > 0)) {
    throw new RangeError(`timeout is a number of seconds above 0, not ${String(timeout)}`)
  }
  return timeout
}

function checkMeta(meta) {
  if (meta !== undefined && meta !== null && !isObject(meta)) {
    throw new TypeError(`meta is an object that describes this device, not ${String(meta)}`)
  }
  return meta
}

function checkBackoff(reconnect) {
  if (!reconnect) return null
  const given = reconnect === true ? {} : reconnect
  const backoff = { initial: 0.5, maximum: 30, factor: 2, lasting: 10, ...given }
  const { initial, maximum, factor, lasting } = backoff
  if (!(initial > 0 && initial <= maximum && factor >= 1 && lasting >= 0)) {
    throw new RangeError("reconnect needs 0 < initial <= maximum, factor >= 1 and lasting >= 0")
  }
  return backoff
}

/** Full jitter spreads clients that lost the same server best. */
function delay({ initial, maximum, factor }, attempt) {
  return Math.random() * Math.min(maximum, initial * factor ** attempt)
}

/** An absolute ws: or wss: URL. Nothing given is where this file came from. */
function resolveUrl(url) {
  const here = import.meta.url
  const served = /^https?:/.test(here)
  if (url === undefined || url === null) {
    if (!served) throw new TypeError("the client needs a url, such as ws://localhost:4200")
    url = new URL(here).pathname.replace(/\/wse\.js$/, "") || "/"
    return resolveUrl(new URL(url, here))
  }
  let absolute
  try {
    absolute = new URL(url, globalThis.location?.href ?? (served ? here : undefined))
  } catch {
    throw new TypeError(`${String(url)} is not a WebSocket URL such as ws://localhost:4200`)
  }
  absolute.protocol = absolute.protocol.replace(/^http/, "ws")
  absolute.hash = ""
  if (!/^wss?:$/.test(absolute.protocol)) {
    throw new TypeError(`${String(url)} is not a WebSocket URL such as ws://localhost:4200`)
  }
  return absolute.href
}

/** At most 123 bytes of UTF-8, cut between characters. */
function cutReason(reason) {
  const encoder = new TextEncoder()
  const text = String(reason)
  if (encoder.encode(text).length <= MAX_REASON_BYTES) return text
  let cut = ""
  let size = 0
  for (const character of text) {
    size += encoder.encode(character).length
    if (size > MAX_REASON_BYTES) break
    cut += character
  }
  return cut
}

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

/** Ten characters that nobody can guess. */
function makeStamp() {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(10))
  return Array.from(bytes, (byte) => ALPHABET[byte % ALPHABET.length]).join("")
}

function setTimer(fn, seconds) {
  return setTimeout(fn, Math.min(seconds * 1000, LONGEST_TIMER))
}

function now() {
  return performance.now() / 1000
}

async function ask(value) {
  return typeof value === "function" ? value() : value
}
