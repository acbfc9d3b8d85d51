/* Holds very many websockets and reports the messages that they receive: one thread, one epoll.
 *
 * It implements as much of RFC 6455 as a client in a measurement needs: the handshake, unfragmented
 * frames, and pings. It does not check Sec-WebSocket-Accept. On top of that it can speak a
 * dialect: a protocol whose clients subscribe with frames of their own, and whose messages arrive
 * inside its frames. load.py sends it commands on standard input, and it answers each command with
 * one line:
 *
 *   open PORT NUMBER AT_ONCE MILLISECONDS FILE
 *                                   open websockets, at most AT_ONCE handshakes at a time (0: all);
 *                                   a line of FILE is a target and header lines, separated by tabs;
 *                                   a last one that starts with > has the bytes to say once the
 *                                   handshake is answered, in hexadecimal digits
 *   speak MARKER READY PING PONG    speak a dialect from now on; each word is > and hexadecimal
 *                                   digits: what precedes the number of each message, what a frame
 *                                   contains when the websocket is ready (nothing: it is at once),
 *                                   a ping, and the frame that answers it
 *   start SEQUENCE ORDERED          reset the counts; if ORDERED, each message starts with a sequence
 *                                   number, which begins at SEQUENCE for every connection
 *   every FRAMES MILLISECONDS       wait until every connection has FRAMES messages
 *   total FRAMES MILLISECONDS       wait until all connections together have FRAMES messages
 *   lap                             report, and reset the latencies but not the counts
 *   handshakes                      for each websocket: the status; in ns, the time at which it was
 *                                   begun, and the times until its request was sent and answered;
 *                                   and how often the request was resent because the kernel dropped it
 *   close                           close all websockets
 *
 * In a dialect, a message is what follows the marker if that is a digit. A ping is the whole of a
 * frame or of a line of it.
 *
 * If the second word of a message is a number, it is the CLOCK_MONOTONIC time in ns at which the
 * message was sent.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 65536, READ = 65536, KEPT = 65536, PREFIX = 48, HEAD = 8192, COMMAND = 8192 };
enum { EVENTS = 512 };

enum state { CONNECTING, OPENING, SPEAKING, OPEN, GONE };

struct connection {
    int socket, status;
    enum state state;
    unsigned kept; /* bytes of an incomplete head or frame */
    uint64_t skip; /* remaining bytes of the current message, which are ignored */
    uint64_t frames, next;
    int64_t begun, asked, took;
    int resent;
    const char *line;
    char *bytes; /* the kept ones: room for KEPT, once there are any */
};

struct words {
    size_t size;
    char bytes[HEAD];
};

static struct connection *all;
static unsigned opened, number, at_once, handshaking, failed, gone, line_count;
static char **lines;
static struct sockaddr_in server = {.sin_family = AF_INET};
static int poll_set;

/* The dialect. Without a marker, there is none. */
static struct words marker, ready, ping, answer;

/* The condition that the current command waits for. */
static enum what { NOTHING, HANDSHAKES, EVERY, TOTAL } waiting;
static uint64_t wanted;
static unsigned complete;
static int64_t deadline;

/* Counts since the last start. */
static int ordered;
static uint64_t frames, bytes, compressed, pings, lost, disordered;
static uint64_t histogram[64 * 32], timed;
static int64_t slowest;

static char space[KEPT + READ];
static char *const arrival = space + KEPT; /* the kept bytes are copied to just before it */

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(struct connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poll_set, operation, c->socket, &event) < 0) die("epoll_ctl");
}

/* Latencies: 32 classes for each power of two, so each is accurate to 3 %. */

static unsigned class_of(uint64_t value) {
    if (value < 32) return value;
    unsigned power = 63 - __builtin_clzll(value);
    return ((power - 4) << 5) + ((value >> (power - 5)) & 31);
}

static int64_t highest_of(unsigned class) {
    if (class < 32) return class;
    unsigned power = (class >> 5) + 4;
    return ((int64_t)(32 + (class & 31) + 1) << (power - 5)) - 1;
}

static int64_t percentile(double share) {
    uint64_t seen = 0;
    for (unsigned i = 0; i < sizeof histogram / sizeof *histogram; i++) {
        seen += histogram[i];
        if (seen && seen >= share * timed) return highest_of(i) < slowest ? highest_of(i) : slowest;
    }
    return 0;
}

/* One connection. */

static int retransmissions(const struct connection *c) {
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    getsockopt(c->socket, IPPROTO_TCP, TCP_INFO, &info, &size);
    return info.tcpi_total_retrans;
}

static void end(struct connection *c) {
    if (c->state < OPEN) {
        handshaking--;
        failed++;
        if (c->state == OPENING) c->resent += retransmissions(c);
        c->took = now() - c->begun;
    } else {
        gone++;
    }
    if (c->frames < wanted) complete++; /* do not wait for it */
    c->state = GONE;
    close(c->socket);
}

static void begin(struct connection *c, unsigned index) {
    c->line = lines[index % line_count];
    c->begun = now();
    c->state = CONNECTING;
    c->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->socket < 0) die("socket");
    handshaking++;
    if (connect(c->socket, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
        end(c);
    else
        watch(c, EPOLL_CTL_ADD, EPOLLOUT);
}

static void ask(struct connection *c) {
    static char head[HEAD];
    const char *headers = strchr(c->line, '\t');
    int target = headers ? headers - c->line : (int)strlen(c->line);
    int size = snprintf(head, HEAD,
                        "GET %.*s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
                        target, c->line, ntohs(server.sin_port));
    for (const char *each = headers; each && size < HEAD; each = strchr(each + 1, '\t')) {
        if (each[1] == '>') break;
        size += snprintf(head + size, HEAD - size, "%.*s\r\n", (int)strcspn(each + 1, "\t"), each + 1);
    }
    if (size < HEAD) size += snprintf(head + size, HEAD - size, "\r\n");
    if (size >= HEAD) {
        errno = EMSGSIZE;
        die("a request's head");
    }
    c->state = OPENING;
    c->asked = now() - c->begun;
    c->resent = -retransmissions(c);
    if (send(c->socket, head, size, MSG_NOSIGNAL) == size)
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
    else
        end(c);
}

static void succeed(struct connection *c) {
    c->state = OPEN;
    c->status = 101;
    c->took = now() - c->begun;
    handshaking--;
}

/* Decodes hexadecimal digits after a ">" up to the end of the word. */
static void decode(struct words *words, const char *digits) {
    words->size = 0;
    for (digits++; isxdigit(digits[0]) && isxdigit(digits[1]); digits += 2) {
        char both[] = {digits[0], digits[1], 0};
        if (words->size == HEAD) die("too much to say");
        words->bytes[words->size++] = strtol(both, NULL, 16);
    }
}

static void say(struct connection *c, const struct words *words) {
    if (c->state == GONE) return;
    if (send(c->socket, words->bytes, words->size, MSG_NOSIGNAL) != (ssize_t)words->size) end(c);
}

/* Subscribes. The status stays 0 until the websocket is ready. */
static void speak(struct connection *c) {
    static struct words words;
    const char *said = strstr(c->line, "\t>");
    c->state = SPEAKING;
    c->status = 0;
    decode(&words, said ? said + 1 : ">");
    say(c, &words);
    if (c->state == SPEAKING && !ready.size) succeed(c);
}

/* Returns the size of the answer to the handshake, or 0 if it is incomplete. */
static size_t answered(struct connection *c, const char *data, size_t size) {
    if (size < 13) return 0; /* the status and its delimiter */
    c->status = atoi(data + 9);
    const char *rest = memmem(data, size, "\r\n\r\n", 4);
    if (c->status != 101 || (!rest && size >= KEPT)) end(c);
    if (c->state == GONE || !rest) return 0;
    c->resent += retransmissions(c);
    if (marker.size)
        speak(c);
    else
        succeed(c);
    return rest + 4 - data;
}

static void heard(struct connection *c, const char *message, unsigned known, int64_t at) {
    char text[PREFIX + 1], *word, *after;
    memcpy(text, message, known);
    text[known] = 0;
    uint64_t sequence = strtoull(text, &word, 10);
    if (ordered) {
        if (word == text || sequence < c->next) {
            disordered++;
        } else {
            lost += sequence - c->next;
            c->next = sequence + 1;
        }
    }
    int64_t sent = strtoll(word, &after, 10);
    if (after == word || word == text) return;
    int64_t latency = at > sent ? at - sent : 0;
    histogram[class_of(latency)]++;
    timed++;
    if (latency > slowest) slowest = latency;
}

static void pong(struct connection *c, const unsigned char *ping, unsigned size) {
    unsigned char frame[6 + 125] = {0x8a, 0x80 | size}; /* its mask is 0 */
    memcpy(frame + 6, ping, size);
    pings++;
    send(c->socket, frame, 6 + size, MSG_NOSIGNAL);
}

static void count(struct connection *c, const char *message, unsigned known, int64_t at) {
    frames++;
    if (message) heard(c, message, known, at);
    if (++c->frames == wanted) complete++;
}

/* Understands a frame of the dialect. */
static void understand(struct connection *c, const char *text, size_t size, int64_t at) {
    const char *end = text + size, *p;
    if (c->state == SPEAKING && memmem(text, size, ready.bytes, ready.size)) succeed(c);
    for (p = text; ping.size && (p = memmem(p, end - p, ping.bytes, ping.size));) {
        int begins = p == text || p[-1] == '\n';
        p += ping.size;
        if (begins && (p == end || *p == '\n' || p[-1] == '\n')) {
            pings++;
            say(c, &answer);
        }
    }
    for (p = text; (p = memmem(p, end - p, marker.bytes, marker.size));) {
        p += marker.size;
        if (p < end && *p >= '0' && *p <= '9') count(c, p, end - p < PREFIX ? end - p : PREFIX, at);
    }
}

/* Returns the number of bytes consumed: whole frames, and ignored parts of messages. */
static size_t parse(struct connection *c, const char *data, size_t size, int64_t at) {
    size_t used = 0;
    while (c->state == OPEN || c->state == SPEAKING) {
        if (c->skip) {
            size_t skipped = c->skip < size - used ? c->skip : size - used;
            c->skip -= skipped;
            used += skipped;
            if (c->skip) break;
        }
        const unsigned char *frame = (const unsigned char *)data + used;
        size_t left = size - used, head = 2;
        if (left < 2) break;
        uint64_t length = frame[1];
        unsigned extended = length == 126 ? 2 : length == 127 ? 8 : 0;
        head += extended;
        if (left < head) break;
        if (extended) length = 0;
        for (unsigned i = 0; i < extended; i++) length = length << 8 | frame[2 + i];
        int control = frame[0] & 8;
        size_t needed = control || length < PREFIX || marker.size ? length : PREFIX;
        if (left < head + needed) {
            if (head + needed > KEPT) {
                errno = EMSGSIZE;
                die("a frame of a dialect");
            }
            break;
        }
        if (frame[0] == 0x89 && length < 126) {
            pong(c, frame + head, length);
        } else if (frame[0] == 0x88) {
            end(c);
        } else if (!control) {
            bytes += length;
            if (marker.size) {
                understand(c, (const char *)frame + head, length, at);
            } else if (frame[0] & 0x40) {
                compressed++;
                count(c, NULL, 0, at);
            } else {
                count(c, (const char *)frame + head, needed, at);
            }
        }
        used += head + needed;
        c->skip = length - needed;
    }
    return used;
}

static void receive(struct connection *c) {
    ssize_t got = recv(c->socket, arrival, READ, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        end(c);
        return;
    }
    char *data = arrival - c->kept;
    size_t size = got + c->kept;
    if (c->kept) memcpy(data, c->bytes, c->kept);
    c->kept = 0;
    size_t used = c->state == OPENING ? answered(c, data, size) : 0;
    if (c->state == OPEN || c->state == SPEAKING) used += parse(c, data + used, size - used, now());
    if (c->state == GONE) return;
    c->kept = size - used;
    if (!c->kept) return;
    if (!c->bytes && !(c->bytes = malloc(KEPT))) die("kept bytes");
    memcpy(c->bytes, data + used, c->kept);
}

/* Commands. */

static void tell(int timed_out) {
    uint64_t fewest = UINT64_MAX, most = 0;
    unsigned open = 0;
    for (unsigned i = 0; i < opened; i++) {
        if (all[i].frames < fewest) fewest = all[i].frames;
        if (all[i].frames > most) most = all[i].frames;
        open += all[i].state == OPEN;
    }
    printf("{\"timed_out\": %s, \"open\": %u, \"failed\": %u, \"gone\": %u, \"frames\": %lu, "
           "\"bytes\": %lu, \"fewest\": %lu, \"most\": %lu, \"lost\": %lu, \"disordered\": %lu, "
           "\"compressed\": %lu, \"pings\": %lu, \"timed\": %lu, \"p50\": %ld, \"p99\": %ld, "
           "\"p999\": %ld, \"slowest\": %ld}\n",
           timed_out ? "true" : "false", open, failed, gone, frames, bytes, opened ? fewest : 0,
           most, lost, disordered, compressed, pings, timed, percentile(.5), percentile(.99),
           percentile(.999), slowest);
    waiting = NOTHING;
}

static int is_done(void) {
    if (waiting == HANDSHAKES) return opened == number && !handshaking;
    if (waiting == EVERY) return complete >= opened;
    return waiting == TOTAL && (frames >= wanted || failed + gone == opened);
}

static void read_lines(const char *path) {
    static char *text;
    FILE *file = fopen(path, "r");
    if (!file) die(path);
    free(text);
    text = NULL;
    size_t room = 0;
    if (getdelim(&text, &room, 0, file) < 0) die(path);
    fclose(file);
    line_count = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        lines = realloc(lines, (line_count + 1) * sizeof *lines);
        lines[line_count++] = line;
    }
}

static void forget_latencies(void) {
    timed = slowest = 0;
    memset(histogram, 0, sizeof histogram);
}

static void wait_for(enum what what, uint64_t count, long milliseconds) {
    waiting = what;
    wanted = count;
    deadline = now() + milliseconds * 1000000;
    complete = 0;
    for (unsigned i = 0; i < opened; i++)
        complete += all[i].state != OPEN || all[i].frames >= wanted;
}

static void obey(char *command) {
    static char words[4][COMMAND];
    char path[4096];
    unsigned port, more;
    uint64_t count;
    long milliseconds;
    if (sscanf(command, "open %u %u %u %ld %4095s", &port, &more, &at_once, &milliseconds, path) == 5) {
        server.sin_port = htons(port);
        read_lines(path);
        number = opened + more;
        if (number > MOST) die("too many websockets");
        if (!at_once) at_once = MOST;
        wait_for(HANDSHAKES, 0, milliseconds);
    } else if (sscanf(command, "speak %s %s %s %s", words[0], words[1], words[2], words[3]) == 4) {
        decode(&marker, words[0]);
        decode(&ready, words[1]);
        decode(&ping, words[2]);
        decode(&answer, words[3]);
        tell(0);
    } else if (sscanf(command, "start %lu %d", &count, &ordered) == 2) {
        for (unsigned i = 0; i < opened; i++) {
            all[i].frames = 0;
            all[i].next = count;
        }
        frames = bytes = compressed = pings = lost = disordered = wanted = 0;
        forget_latencies();
        tell(0);
    } else if (sscanf(command, "every %lu %ld", &count, &milliseconds) == 2) {
        wait_for(EVERY, count, milliseconds);
    } else if (sscanf(command, "total %lu %ld", &count, &milliseconds) == 2) {
        wait_for(TOTAL, count, milliseconds);
    } else if (!strcmp(command, "lap")) {
        tell(0);
        forget_latencies();
    } else if (!strcmp(command, "handshakes")) {
        printf("[");
        for (unsigned i = 0; i < opened; i++)
            printf("%s[%d, %ld, %ld, %ld, %d]", i ? ", " : "", all[i].status, all[i].begun,
                   all[i].asked, all[i].took, all[i].resent);
        printf("]\n");
    } else if (!strcmp(command, "close")) {
        for (unsigned i = 0; i < opened; i++) {
            if (all[i].state != GONE) close(all[i].socket);
            free(all[i].bytes);
        }
        memset(all, 0, opened * sizeof *all);
        opened = number = failed = gone = handshaking = 0;
        tell(0);
    } else {
        fprintf(stderr, "load: unknown command: %s\n", command);
        exit(2);
    }
}

static void turn(void) {
    static struct epoll_event events[EVENTS];
    static char command[COMMAND];
    int64_t left = deadline - now();
    int ready = epoll_wait(poll_set, events, EVENTS, waiting ? left / 1000000 + 1 : -1);
    for (int i = 0; i < ready; i++) {
        struct connection *c = events[i].data.ptr;
        if (!c) {
            if (!fgets(command, sizeof command, stdin)) exit(0); /* the parent has ended */
            command[strcspn(command, "\n")] = 0;
            obey(command);
            return; /* it may have closed other sockets that are ready */
        }
        if (c->state == CONNECTING)
            ask(c);
        else if (c->state != GONE)
            receive(c);
    }
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 1 << 20);
    inet_pton(AF_INET, "127.0.0.1", &server.sin_addr);
    poll_set = epoll_create1(0);
    all = calloc(MOST, sizeof *all);
    struct epoll_event commands = {.events = EPOLLIN, .data.ptr = NULL};
    if (!all || epoll_ctl(poll_set, EPOLL_CTL_ADD, 0, &commands) < 0) die("start");
    for (;;) {
        while (opened < number && handshaking < at_once) {
            begin(&all[opened], opened);
            opened++;
        }
        if (is_done())
            tell(0);
        else if (waiting && now() >= deadline)
            tell(1);
        else
            turn();
    }
}
