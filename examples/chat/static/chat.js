import { WSE_ERROR, WSE_REASON, WSE_STATUS, WseClient } from "/ws/wse.js"

const $ = (id) => document.getElementById(id)
const EVERYONE = "" // the conversation of all; the others are called by a person's name
const TYPING_LASTS = 4000 // milliseconds
const AT_THE_END = 60 // pixels: closer than that, new messages scroll into view

const client = new WseClient({ reconnect: { initial: 0.3, maximum: 5 } })

/** @type {Map<string, { messages: object[], ids: Set<string>, unread: number, draft: string }>} */
let conversations = new Map()
let online = new Map() // name: devices
let current = EVERYONE
let me = ""
let credentials = null
let inside = false
let lostAt = null
let closedWith = [0, ""]
const typing = new Map() // conversation: { name, timer }

// -- getting in and out

function showDoor(problem = "") {
  inside = false
  $("chat").hidden = true
  $("door").hidden = false
  $("door-error").textContent = problem
  $("name").value ||= sessionStorage.getItem("name") ?? ""
  document.title = "Chat"
  ;($("name").value ? $("passphrase") : $("name")).focus()
}

function showChat() {
  inside = true
  $("door").hidden = true
  $("chat").hidden = false
  $("my-name").textContent = me
}

async function enter(identity) {
  credentials = identity
  conversations = new Map()
  current = EVERYONE
  try {
    await client.connect(() => credentials, { device: deviceName() })
    $("passphrase").value = ""
    // A server that has forgotten its accounts takes this one up again.
    if (credentials.passphrase) credentials = { ...credentials, create: true }
    showChat()
    draw()
    $("text").focus()
    return null
  } catch (error) {
    return error
  }
}

$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault()
  const create = event.submitter?.value === "create"
  const name = $("name").value.trim()
  const passphrase = $("passphrase").value
  if (create && passphrase.length < 8) {
    $("door-error").textContent = "A new account needs a passphrase of 8 characters or more."
    $("passphrase").focus()
    return
  }
  const buttons = $("sign-in").querySelectorAll("button")
  for (const button of buttons) button.disabled = true
  $("door-error").textContent = ""
  const error = await enter({ name, passphrase, create })
  for (const button of buttons) button.disabled = false
  if (!error) return
  if (error.code !== WSE_ERROR.NOT_AUTHORIZED) {
    $("door-error").textContent = "The server cannot be reached. Try again in a moment."
  } else if (create) {
    $("door-error").textContent = "This name is taken, or has other signs than letters and digits."
  } else {
    $("door-error").textContent = "The name or the passphrase is wrong."
  }
  $("passphrase").focus()
})

$("sign-out").addEventListener("click", async () => {
  const token = sessionStorage.getItem("token")
  sessionStorage.removeItem("token")
  credentials = null
  await client.call("sign-out", token, { timeout: 2 }).catch(() => {}) // it is forgotten here anyway
  await client.close()
})

function deviceName() {
  const agent = navigator.userAgent
  const find = (names) => names.find(([, mark]) => agent.includes(mark))?.[0]
  const browser = find([["Edge", "Edg/"], ["Firefox", "Firefox/"], ["Chrome", "Chrome/"], ["Safari", "Safari/"]])
  const system = find([["Android", "Android"], ["iPhone", "iPhone"], ["iPad", "iPad"], ["Windows", "Windows"], ["Mac", "Mac OS"], ["Linux", "Linux"]])
  return [browser ?? "Browser", system && `on ${system}`].filter(Boolean).join(" ")
}

// -- the connection

client.when.ready(async (welcome) => {
  me = welcome.name
  sessionStorage.setItem("token", welcome.token)
  sessionStorage.setItem("name", me)
  const away = lostAt === null ? null : Math.max(1, Math.round((Date.now() - lostAt) / 1000))
  lostAt = null
  const old = await client.call("history").catch(() => [])
  for (const message of old) keep(message, away !== null)
  if (away !== null) note(`The connection was lost for ${away} s.`)
  draw()
})

client.when.closed((code, reason) => {
  closedWith = [code, reason]
})

client.when.updated((status) => {
  const away = status !== WSE_STATUS.READY
  $("chat").classList.toggle("away", away)
  $("state-text").textContent = away ? "Reconnecting…" : "Connected"
  $("send").disabled = $("roll").disabled = away
  if (status === WSE_STATUS.RE_CONNECTING) lostAt ??= Date.now()
  if (status === WSE_STATUS.OFFLINE) {
    lostAt = null
    if (inside) showDoor(whyOver(...closedWith))
  }
})

client.when.error((error) => console.warn(error.message)) // an attempt to come back that failed

function whyOver(code, reason) {
  if (reason === WSE_REASON.BY_CLIENT) return ""
  if (reason === WSE_REASON.CLIENTS_CONCURRENCY) {
    return "You signed in on another device. This one was the oldest of six and was signed out."
  }
  if (reason === WSE_REASON.NOT_AUTHORIZED) {
    sessionStorage.removeItem("token")
    return "The server does not know you any more. Please sign in again."
  }
  return `The server closed the connection: ${reason || code}.`
}

// -- what comes in

client.channel.on("message", (message) => {
  const quiet = message.from === me
  const where = keep(message, !quiet)
  if (typing.get(where)?.name === message.from) stopTyping(where)
  draw()
})

client.channel.on("presence", (people) => {
  online = new Map(people.map(({ name, devices }) => [name, devices]))
  draw()
})

client.channel.on("joined", (name) => note(`${name} joined.`))
client.channel.on("left", (name) => note(`${name} left.`))

client.channel.on("typing", ({ from, to }) => {
  const where = to === null ? EVERYONE : from
  stopTyping(where)
  typing.set(where, { name: from, timer: setTimeout(() => stopTyping(where), TYPING_LASTS) })
  drawTyping()
})

function stopTyping(where) {
  clearTimeout(typing.get(where)?.timer)
  typing.delete(where)
  drawTyping()
}

function conversation(where) {
  if (!conversations.has(where)) {
    conversations.set(where, { messages: [], ids: new Set(), unread: 0, draft: "" })
  }
  return conversations.get(where)
}

/** Keep a message where it belongs, once. */
function keep(message, counts) {
  const where = message.to === null ? EVERYONE : message.from === me ? message.to : message.from
  const talk = conversation(where)
  if (talk.ids.has(message.id)) return where
  talk.ids.add(message.id)
  talk.messages.push(message)
  const seen = where === current && !document.hidden && nearEnd()
  if (counts && !seen) talk.unread++
  return where
}

function note(text) {
  conversation(EVERYONE).messages.push({ kind: "note", text, at: Date.now() / 1000 })
  draw()
}

// -- what goes out

$("compose").addEventListener("submit", (event) => {
  event.preventDefault()
  say()
})

async function say() {
  const text = $("text").value.trim()
  if (!text || $("send").disabled) return
  const where = current
  write(where, "") // at once: the next message may be typed while this one is on its way
  problem("")
  toEnd()
  try {
    await client.call("say", { to: where || null, text }, { timeout: 10 })
  } catch (error) {
    write(where, [text, conversation(where).draft].filter(Boolean).join("\n")) // nothing is lost
    problem(why(error))
  }
}

/** Put a text into the box of a conversation. */
function write(where, text) {
  conversation(where).draft = text
  if (where !== current) return
  $("text").value = text
  fit()
}

$("roll").addEventListener("click", async () => {
  try {
    await client.call("roll", { dice: "2d6", to: current || null })
    problem("")
    toEnd()
  } catch (error) {
    problem(why(error))
  }
})

function why(error) {
  if (error.code === WSE_ERROR.RP_TIMEOUT) return "The server did not answer. Look before you send again."
  if (error.code === WSE_ERROR.RP_DISCONNECT) return "The connection was lost. Look before you send again."
  if (error.code === WSE_ERROR.CONNECTION_NOT_READY) return "There is no connection. Try again in a moment."
  if (error.code === "chat.unknown-person") return "Nobody of that name has an account any more."
  return "That was not sent."
}

function problem(text) {
  $("compose-problem").textContent = text
}

let typedAt = 0
$("text").addEventListener("input", () => {
  conversation(current).draft = $("text").value
  fit()
  if (client.status !== WSE_STATUS.READY || Date.now() - typedAt < TYPING_LASTS / 2) return
  typedAt = Date.now()
  client.send("typing", { to: current || null })
})

$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault()
    say()
  }
})

/** The text box grows with its text. */
function fit() {
  const box = $("text")
  box.style.height = "auto"
  box.style.height = `${box.scrollHeight + 2}px`
}

// -- drawing; every text of others goes through textContent

function element(tag, className, text) {
  const made = document.createElement(tag)
  if (className) made.className = className
  if (text !== undefined) made.textContent = text
  return made
}

function avatar(name) {
  const letter = name ? [...name][0].toUpperCase() : "★"
  let sum = 0
  for (const sign of name) sum = (sum * 31 + sign.codePointAt(0)) % 997
  const made = element("span", `avatar tint-${sum % 6}`, letter)
  made.setAttribute("aria-hidden", "true")
  return made
}

function draw() {
  if (!inside) return
  drawPeople()
  drawTalk()
  drawTyping()
}

function drawPeople() {
  const names = new Set([...online.keys(), ...conversations.keys(), current])
  names.delete(me)
  names.delete(EVERYONE)
  const inOrder = [...names].sort((a, b) => online.has(b) - online.has(a) || a.localeCompare(b))
  const focused = document.activeElement?.dataset?.where
  $("people").replaceChildren(...[EVERYONE, ...inOrder].map(drawPerson))
  if (focused !== undefined) {
    for (const button of $("people").querySelectorAll("button")) {
      if (button.dataset.where === focused) button.focus()
    }
  }
  const mine = online.get(me)?.length ?? 1
  $("my-devices").textContent = mine === 1 ? "1 device" : `${mine} devices`
  $("my-devices").title = (online.get(me) ?? []).join(", ")
  const unread = [...conversations.values()].reduce((sum, talk) => sum + talk.unread, 0)
  document.title = unread ? `(${unread}) Chat` : "Chat"
}

function drawPerson(name) {
  const item = element("li")
  const button = element("button")
  button.type = "button"
  button.dataset.where = name
  button.setAttribute("aria-current", String(name === current))
  const picture = avatar(name)
  picture.classList.toggle("online", online.has(name))
  button.append(picture, element("span", "name", name || "Everyone"))
  button.append(element("span", "devices", describe(name)))
  const unread = conversations.get(name)?.unread ?? 0
  if (unread) {
    const badge = element("span", "unread", String(unread))
    badge.append(element("span", "unseen", " unread"))
    button.append(badge)
  }
  button.addEventListener("click", () => open(name))
  item.append(button)
  return item
}

function describe(name) {
  if (name === EVERYONE) return `${online.size} ${online.size === 1 ? "person" : "people"} here`
  const devices = online.get(name)
  if (!devices) return "away"
  return devices.length === 1 ? devices[0] : `${devices.length} devices`
}

function open(where) {
  current = where
  $("text").value = conversation(where).draft
  problem("")
  fit()
  draw()
  toEnd()
  $("text").focus()
}

let drawn = { where: null, count: 0 }

/** Only what is new is added, so that screen readers read that and nothing else. */
function drawTalk() {
  const talk = conversation(current)
  const log = $("log")
  const follow = nearEnd()
  $("with").textContent = current || "Everyone"
  const devices = online.get(current)
  const present = [...online.keys()].map((name) => (name === me ? "you" : name)).join(", ")
  $("about").textContent = current === EVERYONE ? present : devices ? devices.join(", ") : "away; it will be here when they are back"
  $("text").placeholder = current ? `Message to ${current}` : "Message to everyone"
  if (drawn.where !== current || drawn.talk !== talk) {
    log.replaceChildren()
    drawn = { where: current, talk, count: 0 }
  }
  if (talk.messages.length) log.querySelector(".empty")?.remove()
  else if (!log.firstChild) log.append(element("p", "empty", "Nothing has been said yet."))
  for (; drawn.count < talk.messages.length; drawn.count++) {
    log.append(drawMessage(talk.messages[drawn.count], talk.messages[drawn.count - 1]))
  }
  if (follow) toEnd()
  else $("latest").hidden = !talk.unread
}

function drawMessage(message, before) {
  if (message.kind === "note") return element("p", "note", message.text)
  const first = before?.from !== message.from || before.kind === "note" || message.at - before.at > 300
  const mine = message.from === me
  const made = element("div", `message ${message.kind === "roll" ? "roll" : ""} ${mine ? "mine" : ""} ${first ? "first" : ""}`)
  // Whoever hears the page instead of seeing it is told the name each time.
  const who = element("span", first ? "who" : "who unseen", mine ? "You" : message.from)
  const body = element("span", "body", message.text)
  const time = element("time", "", new Date(message.at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }))
  time.dateTime = new Date(message.at * 1000).toISOString()
  body.append(time)
  if (first) made.append(who, avatar(message.from), body)
  else made.append(who, body)
  return made
}

function drawTyping() {
  const who = typing.get(current)
  $("typing").textContent = who ? `${who.name} is writing…` : ""
}

function nearEnd() {
  const log = $("log")
  return log.scrollHeight - log.scrollTop - log.clientHeight < AT_THE_END
}

function toEnd() {
  $("log").scrollTop = $("log").scrollHeight
  seen()
}

function seen() {
  $("latest").hidden = true
  const talk = conversation(current)
  if (!talk.unread || document.hidden) return
  talk.unread = 0
  drawPeople()
}

$("latest").addEventListener("click", toEnd)
$("log").addEventListener("scroll", () => nearEnd() && seen())
document.addEventListener("visibilitychange", () => nearEnd() && seen())

// -- a page that was reloaded is still signed in

const token = sessionStorage.getItem("token")
const problemAtTheDoor = token ? await enter({ token }) : null
if (!token) showDoor()
else if (problemAtTheDoor) {
  if (problemAtTheDoor.code === WSE_ERROR.NOT_AUTHORIZED) sessionStorage.removeItem("token")
  showDoor(problemAtTheDoor.code === WSE_ERROR.NOT_AUTHORIZED ? "Please sign in again." : "The server cannot be reached.")
}
