/*
 * Proves what an MPI launch did: each rank says where it runs, rank 0 sums it up in one JSON line.
 *
 *   mpi-proof [--exit RANK:CODE] [--abort RANK:CODE] [--sleep SECONDS] [--barrier-time]
 *
 *   --exit RANK:CODE   that rank ends with CODE, after MPI_Finalize like all others
 *   --abort RANK:CODE  that rank ends with CODE at once, without MPI_Finalize, after the summary
 *   --sleep SECONDS    every rank sleeps before MPI_Finalize
 *   --barrier-time     rank 0 tells the seconds from its process's start to the end of the first
 *                      barrier
 *
 * The summary: {"world":4,"hosts":2,"sum":10,"expected":10,"ok":true}. "sum" is an allreduce of
 * rank + 1. Ends with 1 if it is wrong, with 2 for options it does not know.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct options {
    int exit_rank, exit_code, abort_rank, abort_code, barrier_time;
    double sleep_s;
};

static int parse_pair(const char *text, int *rank, int *code)
{
    char end;
    return sscanf(text, "%d:%d%c", rank, code, &end) == 2 && *rank >= 0 && *code >= 0 &&
           *code <= 255;
}

static int parse_seconds(const char *text, double *seconds)
{
    char *end;
    *seconds = strtod(text, &end);
    return *text != '\0' && *end == '\0' && *seconds >= 0 && *seconds < 86400;
}

static int parse(int argc, char **argv, struct options *options)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--barrier-time") == 0) {
            options->barrier_time = 1;
            continue;
        }
        if (strcmp(argv[i], "--exit") == 0) {
            if (!parse_pair(value, &options->exit_rank, &options->exit_code))
                return 0;
        } else if (strcmp(argv[i], "--abort") == 0) {
            if (!parse_pair(value, &options->abort_rank, &options->abort_code))
                return 0;
        } else if (strcmp(argv[i], "--sleep") == 0) {
            if (!parse_seconds(value, &options->sleep_s))
                return 0;
        } else {
            return 0;
        }
        i++;
    }
    return 1;
}

/* Seconds since the kernel started this process: field 22 of /proc/self/stat, in clock ticks. */
static double age(void)
{
    char text[4096];
    unsigned long long start = 0;
    struct timespec now;
    FILE *file = fopen("/proc/self/stat", "r");
    if (file == NULL)
        return -1;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    const char *field = strrchr(text, ')');
    for (int i = 3; field != NULL && i <= 22; i++) {
        field = strchr(field + 1, ' ');
    }
    if (field == NULL || sscanf(field, "%llu", &start) != 1)
        return -1;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9 -
           (double)start / (double)sysconf(_SC_CLK_TCK);
}

/* How many different host names the ranks have, counted on rank 0. */
static int count_hosts(int rank, int size, const char *name)
{
    int hosts = 0;
    char *all = NULL;
    if (rank == 0) {
        all = calloc((size_t)size, MPI_MAX_PROCESSOR_NAME);
        if (all == NULL)
            MPI_Abort(MPI_COMM_WORLD, 1);
    }
    MPI_Gather(name, MPI_MAX_PROCESSOR_NAME, MPI_CHAR, all, MPI_MAX_PROCESSOR_NAME, MPI_CHAR, 0,
               MPI_COMM_WORLD);
    for (int i = 0; rank == 0 && i < size; i++) {
        int seen = 0;
        for (int j = 0; j < i && !seen; j++)
            seen = strcmp(all + (size_t)i * MPI_MAX_PROCESSOR_NAME,
                          all + (size_t)j * MPI_MAX_PROCESSOR_NAME) == 0;
        hosts += !seen;
    }
    free(all);
    return hosts;
}

int main(int argc, char **argv)
{
    struct options options = {.exit_rank = -1, .abort_rank = -1};
    char name[MPI_MAX_PROCESSOR_NAME] = "";
    int rank, size, length;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (!parse(argc, argv, &options)) {
        if (rank == 0)
            fprintf(stderr, "mpi-proof: unknown or malformed option: see the head of its source\n");
        MPI_Finalize();
        return 2;
    }
    MPI_Barrier(MPI_COMM_WORLD);
    double barrier_s = age();

    MPI_Get_processor_name(name, &length);
    long mine = rank + 1, sum = 0, expected = (long)size * (size + 1) / 2;
    MPI_Allreduce(&mine, &sum, 1, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    int hosts = count_hosts(rank, size, name);

    printf("rank %d of %d on %s pid %d\n", rank, size, name, (int)getpid());
    fflush(stdout);
    /* Written once every rank has spoken; what collects their output may still mix the lines. */
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) {
        if (options.barrier_time)
            printf("first barrier passed %.3f s after the start\n", barrier_s);
        printf("{\"world\":%d,\"hosts\":%d,\"sum\":%ld,\"expected\":%ld,\"ok\":%s}\n", size, hosts,
               sum, expected, sum == expected ? "true" : "false");
        fflush(stdout);
    }
    if (rank == options.abort_rank)
        _exit(options.abort_code);
    if (options.sleep_s > 0) {
        struct timespec pause = {.tv_sec = (time_t)options.sleep_s};
        pause.tv_nsec = (long)((options.sleep_s - (double)pause.tv_sec) * 1e9);
        nanosleep(&pause, NULL);
    }
    MPI_Finalize();
    if (sum != expected)
        return 1;
    return rank == options.exit_rank ? options.exit_code : 0;
}
