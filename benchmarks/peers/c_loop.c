/* A loop over send(): the minimal cost of a fan-out, in C.
 *
 * c_loop PORT REDIS_PORT. Each client gets a 101, and from then on all messages published on the
 * channel broadcast:FACILITY, where FACILITY is the part of the target after /ws/. There is no
 * authorization, no queue for clients that do not read, and no pings. Malformed input ends the
 * program.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 65536, ROOM = 1 << 20, NAME = 128, EVENTS = 512 };

struct channel {
    char name[NAME];
    int *sockets;
    unsigned count, subscribed;
};

static struct channel channels[2 * MOST]; /* a hash table, with open addressing */
static unsigned channel_count;
static struct channel *channel_of[MOST];  /* of the client with that socket */
static int poll_set, redis;
static char received[ROOM];
static size_t waiting;

static const char ACCEPT[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"; /* the client does not check it */

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int socket) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = socket};
    if (epoll_ctl(poll_set, EPOLL_CTL_ADD, socket, &event) < 0) die("epoll_ctl");
}

/* Returns the channel, or the empty slot where it belongs. */
static struct channel *find(const char *name, size_t size) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ (unsigned char)name[i]) * 16777619u;
    for (;; hash++) {
        struct channel *channel = &channels[hash % (2 * MOST)];
        if (!*channel->name || (!strncmp(channel->name, name, size) && !channel->name[size]))
            return channel;
    }
}

static void accept_all(int *sockets, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        send(sockets[i], ACCEPT, sizeof ACCEPT - 1, MSG_NOSIGNAL);
}

/* The 101 waits until the channel's subscription is active, so that no message is missed. */
static void join(int socket, const char *name) {
    struct channel *channel = find(name, strlen(name));
    if (!*channel->name) {
        if (++channel_count > MOST) die("too many channels");
        strcpy(channel->name, name);
        dprintf(redis, "SUBSCRIBE %s\r\n", name);
    }
    unsigned count = channel->count++;
    if (!(count & (count - 1))) /* a power of two: no room left */
        channel->sockets = realloc(channel->sockets, (count ? 2 * count : 1) * sizeof(int));
    channel->sockets[count] = socket;
    channel_of[socket] = channel;
    accept_all(&socket, channel->subscribed);
}

static void leave(int socket) {
    struct channel *channel = channel_of[socket];
    for (unsigned i = 0; channel && i < channel->count; i++)
        if (channel->sockets[i] == socket) channel->sockets[i] = channel->sockets[--channel->count];
    channel_of[socket] = NULL;
    close(socket);
}

static void hear(int socket) {
    char head[8192], name[NAME];
    ssize_t got = recv(socket, head, sizeof head - 1, 0);
    if (got <= 0 || channel_of[socket]) {
        leave(socket);
        return;
    }
    head[got] = 0;
    strcpy(name, "broadcast:");
    if (sscanf(head, "GET /ws/%100[^? ]", name + strlen(name)) != 1) die("a request");
    join(socket, name);
}

static void publish(const char *name, size_t name_size, char *message, size_t size) {
    struct channel *channel = find(name, name_size);
    unsigned char *frame = (unsigned char *)message - 4; /* overwrites the Redis framing, which has been parsed */
    if (size < 126) {
        frame += 2;
        frame[1] = size;
    } else {
        frame[1] = 126;
        frame[2] = size >> 8;
        frame[3] = size;
    }
    frame[0] = 0x81;
    size += (unsigned char *)message - frame;
    for (unsigned i = 0; i < channel->count; i++)
        send(channel->sockets[i], frame, size, MSG_NOSIGNAL);
}

/* Reads "$SIZE\r\n…\r\n". Returns a pointer to the data after it, or NULL if it is incomplete. */
static char *bulk(char *at, char *end, char **text, size_t *size) {
    if (!at || at == end) return NULL;
    if (*at != '$') die("Redis: a string expected");
    char *line = memchr(at, '\n', end - at);
    if (!line) return NULL;
    *size = strtoul(at + 1, NULL, 10);
    *text = line + 1;
    return (size_t)(end - *text) < *size + 2 ? NULL : *text + *size + 2;
}

/* Reads one reply, "message CHANNEL PAYLOAD" or "subscribe CHANNEL NUMBER". Returns as above. */
static char *reply(char *at, char *end) {
    char *kind, *name, *message, *line;
    size_t kind_size, name_size, size;
    if (end - at < 4) return NULL;
    at = bulk(bulk(at + 4, end, &kind, &kind_size), end, &name, &name_size);
    if (!at) return NULL;
    if (*kind == 's') { /* a number on a line of its own follows */
        line = memchr(at, '\n', end - at);
        struct channel *channel = find(name, name_size);
        if (line) accept_all(channel->sockets, channel->count);
        channel->subscribed |= line != NULL;
        return line ? line + 1 : NULL;
    }
    at = bulk(at, end, &message, &size);
    if (at) publish(name, name_size, message, size);
    return at;
}

static void hear_redis(void) {
    ssize_t got = recv(redis, received + waiting, ROOM - waiting, 0);
    if (got <= 0) exit(0);
    char *at = received, *next, *end = received + waiting + got;
    while ((next = reply(at, end))) at = next;
    waiting = end - at;
    memmove(received, at, waiting);
}

static int listen_on(struct sockaddr_in *address) {
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)address, sizeof *address) < 0) die("bind");
    if (listen(listener, 2048) < 0) die("listen");
    return listener;
}

int main(int count, char **arguments) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    if (count != 3) return 2;
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    poll_set = epoll_create1(0);
    address.sin_port = htons(atoi(arguments[1]));
    int listener = listen_on(&address);
    redis = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_port = htons(atoi(arguments[2]));
    if (connect(redis, (struct sockaddr *)&address, sizeof address) < 0) die("Redis");
    watch(listener);
    watch(redis);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poll_set, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int socket = events[i].data.fd;
            if (socket == redis) {
                hear_redis();
            } else if (socket == listener) {
                int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (client >= 0) watch(client);
            } else {
                hear(socket);
            }
        }
    }
}
