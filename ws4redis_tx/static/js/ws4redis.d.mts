/** Types of ws4redis.mjs. The guide is docs/client.md. */

/** What a facility is asked for: `/ws/news?subscribe-broadcast`, or the same with a host. */
export type Address = string | URL;

/**
 * Asked for the address before each attempt, and once more to find out why an attempt failed.
 * `null` closes the feed. If it throws, rejects, or takes longer than 15 s, it is asked again after
 * the back-off.
 */
export type AskForAddress = () => Address | null | Promise<Address | null>;

export interface Options {
  /** Decode each message as JSON. One that is not JSON goes to `console.error`, and no further. */
  json?: boolean | undefined;
  /** Close the feed when it is aborted. */
  signal?: AbortSignal | undefined;
  /** The position at which the page was rendered, `{% ws4redis_position %}`. */
  since?: string | null | undefined;
  /** Keeps the position across page loads, for pages without `since`: `sessionStorage`. */
  storage?: Pick<Storage, "getItem" | "setItem"> | null | undefined;
  /**
   * The server's `WS4REDIS_HEARTBEAT`, needed only with servers that know no positions. It is not
   * delivered, and 15 s without it or another message end the connection. The console says once if
   * the server seems to lack the setting.
   */
  heartbeat_msg?: string | null | undefined;
}

/** Of one message. */
export interface About {
  /** The feed's position behind this message; `null` if the server knows none. */
  readonly position: string | null;
  /** Whether it was published before this connection opened. */
  readonly replayed: boolean;
}

export interface Status {
  /**
   * - `connecting`: an attempt begins
   * - `open`: connected and subscribed; told again for a later gap
   * - `waiting`: the connection has ended, or the attempt has failed, and another one follows
   * - `closed`: no attempt follows
   */
  readonly state: "connecting" | "open" | "waiting" | "closed";
  /**
   * Why it is `waiting` or `closed`: the websocket's close code, the HTTP status of a refusal, or
   * 1006 for anything else that ended it; `null` if the page or the source closed the feed.
   */
  readonly code: number | null;
  /** The server's words, or a few of our own; may be empty. */
  readonly reason: string;
  /** Milliseconds until the next attempt while `waiting`; `null` if there is none. */
  readonly retryIn: number | null;
  /**
   * When it is `open`: the audiences on which something may have been missed, such as `["user"]`.
   * `[]`: nothing was missed. `null`: not known, since no position was asked for.
   */
  readonly gap: readonly string[] | null;
  /** When it is `open`: over what. `send` needs a websocket. */
  readonly transport: "websocket" | "events" | null;
}

/** A message as a loop gets it. */
export interface Message<T> extends About {
  readonly data: T;
  /** How many messages before this one were dropped because the loop was 1000 behind. */
  readonly dropped: number;
}

export interface Feed<T> extends AsyncIterable<Message<T>> {
  /** The latest status. */
  readonly status: Status;
  /** Call `handler` at each message, in order. Returns a function that undoes this. */
  on(event: "message", handler: (data: T, about: About) => unknown): () => void;
  /** Call `handler` at each change of status. Returns a function that undoes this. */
  on(event: "status", handler: (status: Status) => unknown): () => void;
  /** Resolve with the data of the next message. Rejects if the feed is closed first. */
  once(event: "message"): Promise<T>;
  /** Resolve with the next status. */
  once(event: "status"): Promise<Status>;
  /**
   * Whether the message was handed to an open websocket. `true` does not say that it arrived: the
   * connection may just be dying.
   */
  send(data: string | ArrayBufferLike | Blob | ArrayBufferView): boolean;
  /** Leave the connection and try anew at once. Does nothing after the end. */
  reconnect(): void;
  /** Close the feed for good. No handler is called any more, except for this last status. */
  close(): void;
}

/**
 * Connect, reconnect and resume. The first attempt begins when the caller's own code has run, so that
 * handlers can be set first.
 *
 * Throws `TypeError` for a source that is not a URL, and for options that do not exist.
 */
export function connect<T = unknown>(
  source: Address | AskForAddress,
  options: Options & { json: true },
): Feed<T>;
export function connect<T extends string | ArrayBuffer = string | ArrayBuffer>(
  source: Address | AskForAddress,
  options?: Options & { json?: false | undefined },
): Feed<T>;
export function connect(source: Address | AskForAddress, options: Options): Feed<unknown>;
