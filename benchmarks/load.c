/* The load client: many event streams on one core, cheap enough that the server is what is measured.
 *
 *   load PORT drain CONNECTIONS REQUESTS          read every stream to its end
 *   load PORT hold  CONNECTIONS REQUESTS          open them, say "ready"; then for each line with a number of seconds on
 *                                                 standard input, drop what is late, say "go", and count for so long
 *   load PORT first COUNT       REQUESTS          one after the other: connect, ask, wait for the first stamped event
 *
 * REQUESTS is a file of whole HTTP requests, each ended by a NUL; connection i sends request i modulo their number.
 * An event is a line that begins with "data:". One that holds "t":<Unix seconds>, or t=<them>, is stamped: its latency
 * is counted.
 * Each answer is one line of JSON. Any status but 200 or 201 ends the program with an error.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 4096, PIECE = 1 << 18, AHEAD = 64 };

typedef struct {
    int fd;
    int in_body, chunked, in_size, seen_size; /* in_size: within a chunk's size line */
    size_t left;                              /* of the current chunk, and of the CRLF behind it */
    size_t have;                              /* of the unfinished line */
    size_t head;                              /* of the response's head */
    char line[LINE];
} Stream;

static char requests[1 << 20], *request[65536];
static size_t request_count;
static struct sockaddr_in address;
static char piece[PIECE];

static long events, stamped, opened;
static long long bytes;
static double *latency;
static size_t latency_room;

static void fail(const char *why) {
    fprintf(stderr, "load: %s\n", why);
    exit(1);
}

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void stamp(double t) {
    if ((size_t)stamped == latency_room) {
        latency_room = latency_room ? 2 * latency_room : 1 << 16;
        latency = realloc(latency, latency_room * sizeof *latency);
        if (!latency) fail("out of memory");
    }
    latency[stamped++] = now(CLOCK_REALTIME) - t;
}

static void take_line(const char *line, size_t length) {
    if (length < 5 || memcmp(line, "data:", 5)) return;
    events++;
    const char *found = memmem(line, length, "\"t\":", 4);
    if (!found && (found = memmem(line, length, "\"t=", 3))) found--; /* the text of a chat's token */
    if (found) stamp(strtod(found + 4, NULL));
}

static void take_body(Stream *s, const char *data, size_t length) {
    while (length) {
        const char *end = memchr(data, '\n', length);
        size_t part = end ? (size_t)(end - data) : length;
        if (end && !s->have) {
            take_line(data, part);
        } else {
            size_t room = LINE - 1 - s->have, kept = part < room ? part : room;
            memcpy(s->line + s->have, data, kept);
            s->have += kept;
            if (end) {
                s->line[s->have] = 0;
                take_line(s->line, s->have);
                s->have = 0;
            }
        }
        if (!end) return;
        data += part + 1;
        length -= part + 1;
    }
}

/* The chunked coding (RFC 9112, section 7.1). Returns 1 at the last chunk. */
static int take_chunks(Stream *s, const char *data, size_t length) {
    while (length) {
        if (s->in_size) {
            char c = *data++;
            length--;
            if (c == '\n') {
                if (!s->left) return 1;
                s->in_size = 0;
            } else if (c != '\r') {
                s->left = s->left * 16 + (size_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
            }
        } else if (s->left) {
            size_t part = s->left < length ? s->left : length;
            take_body(s, data, part);
            s->left -= part;
            data += part;
            length -= part;
        } else { /* the CRLF behind a chunk */
            if (*data == '\n') s->in_size = 1;
            data++;
            length--;
        }
    }
    return 0;
}

static int take(Stream *s, const char *data, size_t length) {
    bytes += (long long)length;
    if (!s->in_body) {
        size_t before = s->head, part = LINE - 1 - before < length ? LINE - 1 - before : length;
        memcpy(s->line + before, data, part);
        s->head += part;
        s->line[s->head] = 0;
        char *end = strstr(s->line, "\r\n\r\n");
        if (!end) {
            if (s->head == LINE - 1) fail("a response's head is too long");
            return 0;
        }
        if (strncmp(s->line, "HTTP/1.1 20", 11)) {
            fprintf(stderr, "%s\n", s->line);
            fail("not the status that was expected");
        }
        s->chunked = strcasestr(s->line, "transfer-encoding: chunked") != NULL;
        s->in_body = s->in_size = 1;
        size_t head = (size_t)(end + 4 - s->line) - before;
        data += head;
        length -= head;
        opened++;
    }
    if (s->chunked) return take_chunks(s, data, length);
    take_body(s, data, length);
    return 0;
}

static void connect_to(Stream *s, size_t i) {
    memset(s, 0, sizeof *s);
    int one = 1;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (s->fd < 0) fail("no socket: too few file descriptors?");
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while (connect(s->fd, (struct sockaddr *)&address, sizeof address)) {
        if (errno != EAGAIN && errno != ECONNREFUSED) fail("cannot connect");
        usleep(1000);
    }
    const char *text = request[i % request_count];
    size_t length = strlen(text);
    if (write(s->fd, text, length) != (ssize_t)length) fail("cannot send");
    fcntl(s->fd, F_SETFL, O_NONBLOCK);
}

/* Returns 1 when the stream has ended. */
static int receive(Stream *s) {
    ssize_t got = read(s->fd, piece, PIECE);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got > 0 && !take(s, piece, (size_t)got)) return 0;
    close(s->fd);
    s->fd = -1;
    return 1;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double q) {
    return stamped ? latency[(size_t)(q * (double)(stamped - 1))] : 0.0;
}

static void report(double seconds) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    qsort(latency, (size_t)stamped, sizeof *latency, ascending);
    printf("{\"events\": %ld, \"stamped\": %ld, \"bytes\": %lld, \"seconds\": %.6f, \"p50\": %.9f, \"p90\": %.9f, "
           "\"p99\": %.9f, \"max\": %.9f, \"client_cpu\": %.6f}\n",
           events, stamped, bytes, seconds, quantile(0.5), quantile(0.9), quantile(0.99), quantile(1.0),
           used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    fflush(stdout);
}

static void reset(void) {
    events = stamped = 0;
    bytes = 0;
}

/* Until `until` (monotonic; 0: for ever), or until `open` streams have ended, or `heads` responses have begun. */
static long pump(int epoll, long open, double until, long heads) {
    struct epoll_event ready[512];
    while (open && (!heads || opened < heads)) {
        double left = until ? until - now(CLOCK_MONOTONIC) : 1.0;
        if (left <= 0) break;
        int count = epoll_wait(epoll, ready, 512, (int)(left * 1000) + 1);
        for (int i = 0; i < count; i++) open -= receive(ready[i].data.ptr);
    }
    return open;
}

static void first(size_t count) {
    Stream s;
    double *took = malloc(count * sizeof *took);
    double begun = now(CLOCK_MONOTONIC);
    for (size_t i = 0; i < count; i++) {
        double at = now(CLOCK_MONOTONIC);
        stamped = 0;
        connect_to(&s, i);
        struct pollfd wait = {.fd = s.fd, .events = POLLIN};
        while (!stamped) {
            poll(&wait, 1, -1);
            if (receive(&s) && !stamped) fail("a stream ended before its first event");
        }
        took[i] = now(CLOCK_MONOTONIC) - at;
        if (s.fd >= 0) close(s.fd);
    }
    double seconds = now(CLOCK_MONOTONIC) - begun;
    stamped = 0;
    for (size_t i = 0; i < count; i++) stamp(0);
    memcpy(latency, took, count * sizeof *took);
    report(seconds);
}

int main(int argc, char **argv) {
    if (argc != 5) fail("usage: load PORT drain|hold|first COUNT REQUESTS");
    size_t count = (size_t)atol(argv[3]);
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    FILE *file = fopen(argv[4], "r");
    if (!file) fail("cannot read the requests");
    size_t length = fread(requests, 1, sizeof requests - 1, file);
    for (char *at = requests; at < requests + length; at += strlen(at) + 1) request[request_count++] = at;
    fclose(file);

    if (!strcmp(argv[2], "first")) {
        first(count);
        return 0;
    }
    int hold = !strcmp(argv[2], "hold");
    int epoll = epoll_create1(0);
    Stream *streams = calloc(count, sizeof *streams);
    double begun = now(CLOCK_MONOTONIC);
    for (size_t i = 0; i < count; i++) {
        struct epoll_event interest = {.events = EPOLLIN, .data.ptr = &streams[i]};
        connect_to(&streams[i], i);
        epoll_ctl(epoll, EPOLL_CTL_ADD, streams[i].fd, &interest);
        /* no more than AHEAD wait for their answer: a server's backlog is short */
        if (hold && i >= AHEAD) pump(epoll, 1, 0, (long)i - AHEAD + 1);
    }
    if (hold) pump(epoll, 1, 0, (long)count);
    if (!hold) {
        pump(epoll, (long)count, 0, 0);
        report(now(CLOCK_MONOTONIC) - begun);
        return 0;
    }
    puts("ready");
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        pump(epoll, (long)count, now(CLOCK_MONOTONIC) + 0.5, 0);
        puts("go");
        fflush(stdout);
        reset();
        begun = now(CLOCK_MONOTONIC);
        pump(epoll, (long)count, begun + atof(line), 0);
        report(now(CLOCK_MONOTONIC) - begun);
    }
    return 0;
}
