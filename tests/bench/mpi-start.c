/*
 * Times the start of an MPI run. Rank 0 prints one line: when the last rank came to main(), and when
 * the last rank left the first barrier, in seconds of CLOCK_REALTIME, and the number of ranks.
 */
#include <mpi.h>
#include <stdio.h>
#include <time.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    double mine[2], last[2];
    int rank, size;

    mine[0] = now();
    MPI_Init(&argc, &argv);
    MPI_Barrier(MPI_COMM_WORLD);
    mine[1] = now();
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Reduce(mine, last, 2, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    if (rank == 0)
        printf("times %.6f %.6f %d\n", last[0], last[1], size);
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
    return 0;
}
