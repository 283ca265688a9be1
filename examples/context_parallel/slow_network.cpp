// A network of a given latency and rate between the ranks of one machine: preloaded, it delays what MPI_Isend sends to
// MPI_Recv. Each message is followed by the time of its arrival, until which the receiver sleeps; the sender goes on.
//   KVLANE_LATENCY_US   latency of a message in microseconds
//   KVLANE_MB_PER_S     rate of each rank's outgoing link in MB/s; 0: any

#include <mpi.h>
#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>

namespace {

MPI_Comm arrivals;        // a duplicate of MPI_COMM_WORLD
double link_is_free = 0;  // when this rank's link has sent what it was given

double from_environment(const char *name) {
    const char *text = std::getenv(name);
    return text ? std::atof(text) : 0;
}

// In seconds, on a clock that all processes of the machine share.
double now() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

void sleep_until(double time) {
    timespec until{};
    until.tv_sec = static_cast<time_t>(time);
    until.tv_nsec = static_cast<long>((time - std::floor(time)) * 1e9);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
    }
}

}  // namespace

int MPI_Init_thread(int *argc, char ***argv, int required, int *provided) {
    const int status = PMPI_Init_thread(argc, argv, required, provided);
    PMPI_Comm_dup(MPI_COMM_WORLD, &arrivals);
    prctl(PR_SET_TIMERSLACK, 1UL);  // sleeps end on time
    return status;
}

int MPI_Finalize() {
    PMPI_Comm_free(&arrivals);
    return PMPI_Finalize();
}

// comm has the ranks of MPI_COMM_WORLD.
int MPI_Isend(const void *first, int n, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request) {
    static const double latency = from_environment("KVLANE_LATENCY_US") * 1e-6;
    static const double bytes_per_second = from_environment("KVLANE_MB_PER_S") * 1e6;
    int size;
    PMPI_Type_size(type, &size);
    link_is_free =
        std::max(link_is_free, now()) + (bytes_per_second > 0 ? n * static_cast<double>(size) / bytes_per_second : 0);
    const double arrival = link_is_free + latency;
    const int status = PMPI_Isend(first, n, type, to, tag, comm, request);
    PMPI_Send(&arrival, 1, MPI_DOUBLE, to, tag, arrivals);
    return status;
}

int MPI_Recv(void *first, int n, MPI_Datatype type, int from, int tag, MPI_Comm comm, MPI_Status *status) {
    double arrival;
    const int received = PMPI_Recv(first, n, type, from, tag, comm, status);
    PMPI_Recv(&arrival, 1, MPI_DOUBLE, from, tag, arrivals, MPI_STATUS_IGNORE);
    sleep_until(arrival);
    return received;
}
